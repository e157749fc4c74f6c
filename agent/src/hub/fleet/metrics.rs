//! The fleet as metrics, every name and help in this one file. Pure.
//!
//! Written as Prometheus text, or as OpenMetrics for whoever asks for that: the same samples; counters are named without `_total` in their
//! heads there, and the end is marked. Gateways are labelled by site and gateway, conditions by code: all of them names of bounded length and
//! harmless letters. Only the version is foreign text, and is escaped.
//!
//! A gateway that is not known to be online has no sample where nothing is known: an absent sample is no zero.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Fleet;
use super::row::{Filter, Row, State};

/// Which dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// By what a scraper accepts.
    pub fn asked(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }
}

/// What is counted beside the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub connected: bool,
    pub connections: u64,
    pub alarms: u64,
    pub alarms_beyond: u64,
    pub notices_waiting: u64,
    pub notices_delivered: u64,
    pub notices_failed: u64,
    pub notices_dropped: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gauge,
    Counter,
}

/// A name without `_total`, what it is, and a sentence.
type Family = (&'static str, Kind, &'static str);

const GATEWAYS: Family = ("siteward_fleet_gateways", Kind::Gauge, "Gateways by what is known of them.");
const ONLINE: Family =
    ("siteward_fleet_gateway_online", Kind::Gauge, "1 while the gateway is connected to the broker and its status is believed, else 0.");
const INFO: Family = ("siteward_fleet_gateway_info", Kind::Gauge, "1 for the version that the gateway's agent runs.");
const TOLD: Family = (
    "siteward_fleet_gateway_status_age_seconds",
    Kind::Gauge,
    "Age of the gateway's status; it tells it every five minutes while it is online.",
);
const REVISION: Family =
    ("siteward_fleet_gateway_config_revision", Kind::Gauge, "Revision of the document that the gateway runs; 0 for its local file alone.");
const REFUSED: Family = (
    "siteward_fleet_gateway_config_refused",
    Kind::Gauge,
    "1 while the newest document was refused or rolled back by the gateway, else 0.",
);
const QUEUED: Family = ("siteward_fleet_gateway_queued_records", Kind::Gauge, "Records at the gateway that the hub has not confirmed.");
const OLDEST: Family = (
    "siteward_fleet_gateway_oldest_queued_timestamp_seconds",
    Kind::Gauge,
    "When the oldest of the gateway's unconfirmed records was received.",
);
const SPOOL: Family = ("siteward_fleet_gateway_spool_bytes", Kind::Gauge, "Bytes that the gateway's spool takes.");
const SPOOL_MAX: Family = ("siteward_fleet_gateway_spool_max_bytes", Kind::Gauge, "Bytes that the gateway's spool may take.");
const FULL: Family = (
    "siteward_fleet_gateway_time_to_full_seconds",
    Kind::Gauge,
    "Time until the gateway's spool is full at the present rate; absent while it does not fill.",
);
const CONDITIONS: Family =
    ("siteward_fleet_conditions", Kind::Gauge, "Conditions that a gateway tells, by code; the runbook has a section for each.");
const MESSAGES: Family = ("siteward_fleet_messages", Kind::Counter, "Statuses and reported states that came.");
const MALFORMED: Family = ("siteward_fleet_messages_refused", Kind::Counter, "Statuses and reported states that are not of the contract.");
const BEYOND: Family =
    ("siteward_fleet_messages_beyond", Kind::Counter, "Statuses and reported states of gateways for which there was no room.");
const CONNECTED: Family =
    ("siteward_fleet_broker_connected", Kind::Gauge, "1 while connected to the broker, else 0: nothing else here is news then.");
const CONNECTIONS: Family = ("siteward_fleet_broker_connections", Kind::Counter, "Connections to the broker that were made.");
const ALARMS: Family = ("siteward_fleet_alarms", Kind::Gauge, "Alarms that are raised now.");
const ALARMS_BEYOND: Family = ("siteward_fleet_alarms_beyond", Kind::Counter, "Alarms that were not told because too many are raised.");
const WAITING: Family = ("siteward_fleet_notices_waiting", Kind::Gauge, "Notices that wait for a receiver to take them.");
const DELIVERED: Family = ("siteward_fleet_notices_delivered", Kind::Counter, "Notices that a receiver took.");
const FAILED: Family = ("siteward_fleet_notices_failed", Kind::Counter, "Attempts to deliver a notice that failed; each is tried again.");
const DROPPED: Family =
    ("siteward_fleet_notices_dropped", Kind::Counter, "Notices that were given up: refused for good, or too many waited.");

/// A label's value: what is foreign is escaped.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

struct Page {
    format: Format,
    text: String,
}

impl Page {
    fn family(&mut self, (name, kind, help): Family, samples: impl IntoIterator<Item = (String, f64)>) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let (word, total) = if kind == Kind::Counter { ("counter", "_total") } else { ("gauge", "") };
        let head = if self.format == Format::OpenMetrics { name.to_owned() } else { format!("{name}{total}") };
        // Writing to a string does not fail, here and below.
        let _ = writeln!(self.text, "# HELP {head} {help}\n# TYPE {head} {word}");
        for (labels, value) in samples {
            let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            let _ = writeln!(self.text, "{name}{total}{labels} {value}");
        }
    }

    fn one(&mut self, family: Family, value: u64) {
        self.family(family, [(String::new(), value as f64)]);
    }

    fn each(&mut self, family: Family, rows: &[Row], value: impl Fn(&Row) -> Option<f64>) {
        self.family(family, rows.iter().filter_map(|row| Some((labels(row), value(row)?))));
    }
}

fn labels(row: &Row) -> String {
    format!("site=\"{}\",gateway=\"{}\"", row.site, row.gateway)
}

/// The whole page.
pub fn page(fleet: &Fleet, counts: &Counts, format: Format, now_ms: i64) -> String {
    let rows = fleet.rows(&Filter::default(), now_ms);
    let mut page = Page { format, text: String::new() };
    let count = |state: State| rows.iter().filter(|row| row.state == state).count() as f64;
    page.family(GATEWAYS, State::ALL.map(|state| (format!("state=\"{}\"", state.as_str()), count(state))));
    page.each(ONLINE, &rows, |row| Some(f64::from(u8::from(row.state == State::Online))));
    let info = |row: &Row| Some((format!("{},version=\"{}\"", labels(row), escaped(row.version.as_ref()?)), 1.0));
    page.family(INFO, rows.iter().filter_map(info));
    page.each(TOLD, &rows, |row| row.told_age_s.map(|age| age as f64));
    page.each(REVISION, &rows, |row| row.revision.map(|revision| revision as f64));
    let refused = |row: &Row| row.tried.as_ref().is_some_and(|tried| matches!(tried.state.as_str(), "refused" | "rolled_back"));
    page.each(REFUSED, &rows, |row| row.revision.map(|_| f64::from(u8::from(refused(row)))));
    page.each(QUEUED, &rows, |row| row.queued.map(|queued| queued as f64));
    page.each(OLDEST, &rows, |row| {
        row.oldest_queued.as_ref()?.parse::<jiff::Timestamp>().ok().map(|oldest| oldest.as_millisecond() as f64 / 1000.0)
    });
    page.each(SPOOL, &rows, |row| row.spool_bytes.map(|bytes| bytes as f64));
    page.each(SPOOL_MAX, &rows, |row| row.spool_max_bytes.map(|bytes| bytes as f64));
    page.each(FULL, &rows, |row| row.time_to_full_s.map(|seconds| seconds as f64));
    page.family(CONDITIONS, rows.iter().flat_map(conditions));
    page.one(MESSAGES, fleet.messages);
    page.one(MALFORMED, fleet.refused);
    page.one(BEYOND, fleet.beyond);
    page.one(CONNECTED, u64::from(counts.connected));
    page.one(CONNECTIONS, counts.connections);
    page.one(ALARMS, counts.alarms);
    page.one(ALARMS_BEYOND, counts.alarms_beyond);
    page.one(WAITING, counts.notices_waiting);
    page.one(DELIVERED, counts.notices_delivered);
    page.one(FAILED, counts.notices_failed);
    page.one(DROPPED, counts.notices_dropped);
    if format == Format::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

/// How often each code stands at a gateway (it may be raised for several feeds). Of one that is not online nothing is known now.
fn conditions(row: &Row) -> Vec<(String, f64)> {
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for shown in row.conditions.iter().flatten().filter(|_| row.state == State::Online) {
        *counts.entry((&shown.code, shown.severity.as_str())).or_default() += 1;
    }
    let label = |(code, severity)| format!("{},code=\"{code}\",severity=\"{severity}\"", labels(row));
    counts.into_iter().map(|(key, count)| (label(key), f64::from(count))).collect()
}
