//! The gateway's metrics: a snapshot in, text out. Pure.
//!
//! ```text
//!   board, spool monitor ─► status::snapshot ─┬─► control socket ─► siteward status --metrics ─► node_exporter's textfile collector
//!                                             └─► /metrics of the local server                 ─► Prometheus
//! ```
//!
//! No counters beside the snapshot: a second set could say something else than `siteward status` and the page do, and would have to be kept; here a
//! figure is one read of one place. What is left to do is write lines, which [`text`] has `prometheus-client` do for gateway and desk alike, in both
//! dialects. `promtool check metrics` and a strict OpenMetrics parser look at the result in the tests.
//!
//! The page is bounded: families are a closed list ([`names`]), labels are feeds (at most [`FEEDS_MAX`](crate::limits::FEEDS_MAX)), lanes and
//! condition codes. It holds counts, times, names and codes (I7).

pub mod names;
pub mod text;

use std::collections::BTreeMap;

use self::names as n;
use self::text::{Family, Format, Page, labels};
use crate::limits::SYNC_BOUNDS_US;
use crate::status::condition::Code;
use crate::status::snapshot::{Feed, Shown, Snapshot};

/// The states a configuration can be in.
const CONFIG_STATES: [&str; 5] = ["local", "staged", "trial", "committed_local", "committed"];

/// The whole page.
pub fn render(snapshot: &Snapshot, format: Format) -> String {
    let mut page = Page::new(format);
    process(&mut page, snapshot);
    uplink(&mut page, snapshot);
    feeds(&mut page, &snapshot.feeds);
    spool(&mut page, snapshot);
    conditions(&mut page, snapshot);
    page.finish()
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point; a counter above 2^53 is not met")]
fn number(n: u64) -> f64 {
    n as f64
}

fn process(page: &mut Page, s: &Snapshot) {
    page.family(n::BUILD, [(labels([("site", s.site.as_str()), ("gateway", s.gateway.as_str()), ("version", &s.version)]), 1.0)]);
    page.one(n::UPTIME, number(s.uptime_s));
    page.one(n::STARTS, number(s.starts));
    page.one(n::CLOCK_SUSPECT, flag(s.clock_suspect));
    page.one(n::CONFIG_REVISION, number(s.config.revision.unwrap_or(0)));
    page.family(n::CONFIG_STATE, CONFIG_STATES.map(|state| (labels([("state", state)]), flag(s.config.state == state))));
    if let Some(process) = &s.process {
        page.one(n::RESIDENT, number(process.resident_bytes));
        page.one(n::CPU, number(process.cpu_ms) / 1000.0);
        page.one(n::FDS, number(process.open_fds));
        page.one(n::THREADS, number(process.threads));
    }
}

fn uplink(page: &mut Page, s: &Snapshot) {
    let counts = &s.uplink.counts;
    page.one(n::UPLINK_UP, flag(s.uplink.state == "connected"));
    page.one(n::UPLINK_STATE_AGE, number(s.uplink.for_s));
    page.one(n::UPLINK_CONNECTIONS, number(counts.connections));
    page.one(n::UPLINK_FAILURES, number(counts.failures));
    page.one(n::UPLINK_REFUSALS, number(counts.refusals));
    page.one(n::UPLINK_PUBLISHED, number(counts.published));
    page.one(n::UPLINK_ACKNOWLEDGED, number(counts.acknowledged));
    page.one(n::UPLINK_RECEIPTS, number(counts.receipts));
    page.some(n::UPLINK_ACKNOWLEDGED_AGE, counts.last_acknowledged_age_s.map(number));
    page.some(n::UPLINK_RECEIPT_AGE, counts.last_receipt_age_s.map(number));
    let end = s.uplink.certificate_ends.as_ref().and_then(|end| end.parse::<jiff::Timestamp>().ok());
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
    page.some(n::CERTIFICATE_END, end.map(|end| end.as_second() as f64));
}

fn feeds(page: &mut Page, feeds: &[Feed]) {
    type Figure = fn(&Feed) -> Option<f64>;
    let table: [(Family, Figure); 14] = [
        (n::FEED_CAPTURED, |f| Some(number(f.captured))),
        (n::FEED_RELEASED, |f| Some(number(f.released))),
        (n::FEED_DUPLICATES, |f| Some(number(f.duplicates))),
        (n::FEED_REFUSED, |f| Some(number(f.refused))),
        (n::FEED_QUARANTINED, |f| Some(number(f.quarantined))),
        (n::FEED_QUEUED, |f| Some(number(f.queued))),
        (n::FEED_OLDEST, |f| if f.queued == 0 { Some(0.0) } else { f.oldest_age_s.map(number) }),
        (n::FEED_MESSAGE_AGE, |f| f.last_message_age_s.map(number)),
        (n::FEED_SEQ, |f| Some(number(f.last_seq))),
        (n::FEED_CONNECTIONS, |f| Some(number(f.connections))),
        (n::FEED_CONNECTIONS_REFUSED, |f| Some(number(f.connections_refused))),
        (n::FEED_RETIRED, |f| Some(flag(f.retired))),
        (n::FEED_SILENT, |f| f.expected.as_ref().map(|expected| flag(expected.silent))),
        (n::FEED_OBJECTIVE, |f| f.about.as_ref().and_then(|about| about.objective.as_ref()).map(|word| flag(word == "missed"))),
    ];
    for (family, figure) in table {
        let sample = |feed: &Feed| Some((labels([("feed", feed.id.as_str()), ("lane", &feed.lane)]), figure(feed)?));
        page.family(family, feeds.iter().filter_map(sample));
    }
}

fn spool(page: &mut Page, s: &Snapshot) {
    let of = |name: &str| labels([("lane", name)]);
    page.family(n::LANE_RECORDS, s.lanes.iter().map(|lane| (of(&lane.name), number(lane.records))));
    page.family(n::LANE_BYTES, s.lanes.iter().map(|lane| (of(&lane.name), number(lane.bytes))));
    let oldest = |lane: &crate::status::snapshot::Lane| if lane.records == 0 { Some(0) } else { lane.oldest_age_s };
    page.family(n::LANE_OLDEST, s.lanes.iter().filter_map(|lane| Some((of(&lane.name), number(oldest(lane)?)))));
    page.one(n::SPOOL_BYTES, number(s.spool.bytes));
    page.one(n::SPOOL_MAX, number(s.spool.max_bytes));
    page.some(n::SPOOL_FULL, s.spool.time_to_full_s.map(number));
    let syncs = &s.spool.syncs;
    if syncs.counts.len() == SYNC_BOUNDS_US.len() + 1 {
        let bounds = SYNC_BOUNDS_US.map(|us| number(us) / 1e6);
        page.histogram(n::SPOOL_SYNC, &bounds, &syncs.counts, number(syncs.total_us) / 1e6);
    }
    page.one(n::NOTES_DROPPED, number(s.spool.notes_dropped));
}

/// Of every code there is, so that one that comes and goes leaves no hole.
fn conditions(page: &mut Page, s: &Snapshot) {
    let mut counts: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for shown in &s.conditions {
        let count = counts.entry(&shown.code).or_default();
        count.0 += 1;
        count.1 += u32::from(shown.alerting);
    }
    let counts = &counts;
    let each = |of: fn((u32, u32)) -> u32| {
        Code::ALL.iter().map(move |code| {
            let count = counts.get(code.as_str()).copied().unwrap_or_default();
            (labels([("code", code.as_str()), ("severity", code.severity().as_str())]), f64::from(of(count)))
        })
    };
    page.family(n::CONDITIONS, each(|(raised, _)| raised).collect::<Vec<_>>());
    page.family(n::ALERTING, each(|(_, alerting)| alerting).collect::<Vec<_>>());
    let silenced = |shown: &&Shown| shown.silenced.is_some();
    page.one(n::SILENCED, number(s.conditions.iter().filter(silenced).count() as u64));
    page.one(n::MAINTENANCE, number(s.maintenance.iter().filter(|window| window.from.is_none()).count() as u64));
    page.one(n::ALERTS_SENT, number(s.alerts.sent));
    page.one(n::ALERTS_WAITING, number(s.alerts.waiting));
    page.one(n::ALERTS_DROPPED, number(s.alerts.dropped));
}

#[cfg(test)]
mod tests;
