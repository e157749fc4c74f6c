//! The fleet as metrics, every name and help in this one file. Pure.
//!
//! Written by the writer that gateways use too (`metrics::text`), as Prometheus text or as OpenMetrics. Gateways are labelled by site and gateway,
//! conditions by code: all of them names of bounded length and harmless letters. Only the version is foreign text, and is escaped.
//!
//! A gateway that is not known to be online has no sample where nothing is known: an absent sample is no zero.

use std::collections::BTreeMap;

use super::Fleet;
use super::row::{Filter, Row, State};
use crate::hub::ends::End;
pub use crate::metrics::text::Format;
use crate::metrics::text::{Family, Labels, Page, families, labels};

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

families! {
    GATEWAYS = "siteward_fleet_gateways", Gauge, "Gateways by what is known of them.";
    ONLINE = "siteward_fleet_gateway_online", Gauge, "1 while the gateway is connected to the broker and its status is believed, else 0.";
    MAINTENANCE = "siteward_fleet_gateway_maintenance", Gauge,
        "1 while a maintenance window of the gateway as a whole holds, as it told before it went, else 0.";
    INFO = "siteward_fleet_gateway_info", Gauge, "1 for the version that the gateway's agent runs.";
    TOLD = "siteward_fleet_gateway_status_age_seconds", Gauge,
        "Age of the gateway's status; it tells it every five minutes while it is online.";
    REVISION = "siteward_fleet_gateway_config_revision", Gauge,
        "Revision of the document that the gateway runs; 0 for its local file alone.";
    REFUSED = "siteward_fleet_gateway_config_refused", Gauge,
        "1 while the newest document was refused or rolled back by the gateway, else 0.";
    QUEUED = "siteward_fleet_gateway_queued_records", Gauge, "Records at the gateway that the hub has not confirmed.";
    OLDEST = "siteward_fleet_gateway_oldest_queued_timestamp_seconds", Gauge,
        "When the oldest of the gateway's unconfirmed records was received.";
    SPOOL = "siteward_fleet_gateway_spool_bytes", Gauge, "Bytes that the gateway's spool takes.";
    SPOOL_MAX = "siteward_fleet_gateway_spool_max_bytes", Gauge, "Bytes that the gateway's spool may take.";
    FULL = "siteward_fleet_gateway_time_to_full_seconds", Gauge,
        "Time until the gateway's spool is full at the present rate; absent while it does not fill.";
    CONDITIONS = "siteward_fleet_conditions", Gauge, "Conditions that a gateway tells, by code; the runbook has a section for each.";
    MESSAGES = "siteward_fleet_messages", Counter, "Statuses and reported states that came.";
    MALFORMED = "siteward_fleet_messages_refused", Counter, "Statuses and reported states that are not of the contract.";
    BEYOND = "siteward_fleet_messages_beyond", Counter, "Statuses and reported states of gateways for which there was no room.";
    CONNECTED = "siteward_fleet_broker_connected", Gauge, "1 while connected to the broker, else 0: nothing else here is news then.";
    CONNECTIONS = "siteward_fleet_broker_connections", Counter, "Connections to the broker that were made.";
    ALARMS = "siteward_fleet_alarms", Gauge, "Alarms that are raised now.";
    ALARMS_BEYOND = "siteward_fleet_alarms_beyond", Counter, "Alarms that were not told because too many are raised.";
    WAITING = "siteward_fleet_notices_waiting", Gauge, "Notices that wait for a receiver to take them.";
    DELIVERED = "siteward_fleet_notices_delivered", Counter, "Notices that a receiver took.";
    FAILED = "siteward_fleet_notices_failed", Counter, "Attempts to deliver a notice that failed; each is tried again.";
    ENDS = "siteward_fleet_desk_end_timestamp_seconds", Gauge,
        "When a certificate of the desk or the receiver, or a list of revoked certificates, ends.";
    DROPPED = "siteward_fleet_notices_dropped", Counter, "Notices that were given up: refused for good, or too many waited.";
}

fn each(page: &mut Page, family: Family, rows: &[Row], value: impl Fn(&Row) -> Option<f64>) {
    page.family(family, rows.iter().filter_map(|row| Some((of(row), value(row)?))));
}

fn of(row: &Row) -> Labels {
    labels([("site", row.site.as_str()), ("gateway", row.gateway.as_str())])
}

/// The whole page.
pub fn page(fleet: &Fleet, counts: &Counts, ends: &[End], format: Format, now_ms: i64) -> String {
    let rows = fleet.rows(&Filter::default(), now_ms);
    let mut page = Page::new(format);
    let count = |state: State| rows.iter().filter(|row| row.state == state).count() as f64;
    page.family(GATEWAYS, State::ALL.map(|state| (labels([("state", state.as_str())]), count(state))));
    each(&mut page, ONLINE, &rows, |row| Some(f64::from(u8::from(row.state == State::Online))));
    each(&mut page, MAINTENANCE, &rows, |row| Some(f64::from(u8::from(row.maintenance.is_some()))));
    let info = |row: &Row| Some(([of(row), labels([("version", row.version.as_ref()?)])].concat(), 1.0));
    page.family(INFO, rows.iter().filter_map(info));
    each(&mut page, TOLD, &rows, |row| row.told_age_s.map(|age| age as f64));
    each(&mut page, REVISION, &rows, |row| row.revision.map(|revision| revision as f64));
    let refused = |row: &Row| row.tried.as_ref().is_some_and(|tried| matches!(tried.state.as_str(), "refused" | "rolled_back"));
    each(&mut page, REFUSED, &rows, |row| row.revision.map(|_| f64::from(u8::from(refused(row)))));
    each(&mut page, QUEUED, &rows, |row| row.queued.map(|queued| queued as f64));
    each(&mut page, OLDEST, &rows, |row| {
        row.oldest_queued.as_ref()?.parse::<jiff::Timestamp>().ok().map(|oldest| oldest.as_millisecond() as f64 / 1000.0)
    });
    each(&mut page, SPOOL, &rows, |row| row.spool_bytes.map(|bytes| bytes as f64));
    each(&mut page, SPOOL_MAX, &rows, |row| row.spool_max_bytes.map(|bytes| bytes as f64));
    each(&mut page, FULL, &rows, |row| row.time_to_full_s.map(|seconds| seconds as f64));
    page.family(CONDITIONS, rows.iter().flat_map(conditions));
    page.one(MESSAGES, fleet.messages as f64);
    page.one(MALFORMED, fleet.refused as f64);
    page.one(BEYOND, fleet.beyond as f64);
    page.one(CONNECTED, f64::from(u8::from(counts.connected)));
    page.one(CONNECTIONS, counts.connections as f64);
    page.one(ALARMS, counts.alarms as f64);
    page.one(ALARMS_BEYOND, counts.alarms_beyond as f64);
    page.one(WAITING, counts.notices_waiting as f64);
    page.one(DELIVERED, counts.notices_delivered as f64);
    page.one(FAILED, counts.notices_failed as f64);
    page.family(ENDS, ends.iter().map(|end| (labels([("of", end.what.as_str())]), end.at as f64)));
    page.one(DROPPED, counts.notices_dropped as f64);
    page.finish()
}

/// How often each code stands at a gateway (it may be raised for several feeds). Of one that is not online nothing is known now.
fn conditions(row: &Row) -> Vec<(Labels, f64)> {
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for shown in row.conditions.iter().flatten().filter(|_| row.state == State::Online) {
        *counts.entry((&shown.code, shown.severity.as_str())).or_default() += 1;
    }
    let label = |(code, severity)| [of(row), labels([("code", code), ("severity", severity)])].concat();
    counts.into_iter().map(|(key, count)| (label(key), f64::from(count))).collect()
}
