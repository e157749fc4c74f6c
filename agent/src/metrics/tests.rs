//! What a scraper reads of a snapshot.

use std::collections::BTreeSet;

use super::text::Kind;
use super::*;
use crate::alerts::view::Silenced;
use crate::record::Name;
use crate::status::facts::{ProcessFacts, Syncs};
use crate::status::snapshot::tests::example;

fn full() -> Snapshot {
    let mut s = example();
    (s.starts, s.clock_suspect) = (4, true);
    s.process = Some(ProcessFacts { resident_bytes: 9 << 20, cpu_ms: 1250, open_fds: 31, threads: 9 });
    s.spool.syncs = Syncs { counts: (0..=SYNC_BOUNDS_US.len() as u64).collect(), total_us: 2_500_000 };
    s.uplink.certificate_ends = Some("2027-11-01T00:00:00.000Z".into());
    (s.uplink.counts.published, s.uplink.counts.last_receipt_age_s) = (7, Some(3));
    s.conditions[0].alerting = true;
    s
}

fn samples(text: &str) -> Vec<(&str, &str)> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').expect("a name and a value")).collect()
}

#[test]
fn a_snapshot_is_read_in_figures() {
    let text = render(&full(), Format::OpenMetrics);
    let samples = samples(&text);
    for (name, value) in [
        ("siteward_build_info{site=\"st-marys\",gateway=\"st-marys-gw1\",version=\"0.1.0\"}", "1"),
        ("siteward_uptime_seconds", "90061"),
        ("siteward_starts_total", "4"),
        ("siteward_clock_suspect", "1"),
        ("siteward_uplink_up", "1"),
        ("siteward_uplink_published_total", "7"),
        ("siteward_uplink_last_receipt_age_seconds", "3"),
        ("siteward_uplink_certificate_not_after_timestamp_seconds", "1825027200"),
        ("siteward_feed_captured_total{feed=\"or-usage\",lane=\"critical\"}", "1"),
        ("siteward_feed_queued_records{feed=\"or-usage\",lane=\"critical\"}", "3"),
        ("siteward_feed_oldest_age_seconds{feed=\"or-usage\",lane=\"critical\"}", "3600"),
        ("siteward_feed_retired{feed=\"old\",lane=\"bulk\"}", "1"),
        ("siteward_lane_oldest_age_seconds{lane=\"normal\"}", "0"),
        ("siteward_spool_time_to_full_seconds", "7200"),
        ("siteward_spool_sync_seconds_bucket{le=\"0.00025\"}", "0"),
        ("siteward_spool_sync_seconds_bucket{le=\"+Inf\"}", "78"),
        ("siteward_spool_sync_seconds_sum", "2.5"),
        ("siteward_condition{code=\"listener_down\",severity=\"error\"}", "1"),
        ("siteward_condition_alerting{code=\"listener_down\",severity=\"error\"}", "1"),
        ("siteward_condition_alerting{code=\"spool_key_beside_spool\",severity=\"warning\"}", "0"),
        ("siteward_condition{code=\"spool_full\",severity=\"error\"}", "0"),
        ("siteward_config_state{state=\"local\"}", "1"),
        ("siteward_process_cpu_seconds_total", "1.25"),
    ] {
        assert!(samples.contains(&(name, value)), "{name} {value} is not in\n{text}");
    }
    assert!(!text.contains("siteward_lane_oldest_age_seconds{lane=\"bulk\"}"), "what is not known has no sample");
    assert!(text.ends_with("# EOF\n"));
}

/// Every family is listed once, with a help that is a sentence; and what is written is listed.
#[test]
fn names_are_a_closed_list_with_help() {
    let names: BTreeSet<&str> = n::ALL.iter().map(|(name, _, _)| *name).collect();
    assert_eq!(names.len(), n::ALL.len());
    for (name, kind, help) in n::ALL {
        assert!(help.ends_with('.') && help.len() > 15, "{name}: {help}");
        assert!(
            name.starts_with("siteward_") && !name.ends_with("_total") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "{name}"
        );
        assert!(*kind != Kind::Histogram || name.ends_with("_seconds"), "{name} has no unit");
    }
    let text = render(&full(), Format::OpenMetrics);
    let written: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let strangers: Vec<_> = written.difference(&names).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
    let rare = ["siteward_feed_silent", "siteward_feed_objective_missed", "siteward_uplink_last_acknowledged_age_seconds"];
    let missing: Vec<_> = names.difference(&written).filter(|name| !rare.contains(name)).collect();
    assert!(missing.is_empty(), "never written: {missing:?}");
}

/// I4: with as many feeds and conditions as there can be, the page stays within half a megabyte; labels are feeds, lanes and codes only (I7).
#[test]
fn the_page_is_bounded_and_its_labels_are_closed() {
    let mut s = full();
    let (feed, shown) = (s.feeds[0].clone(), s.conditions[0].clone());
    s.feeds = (0..crate::limits::FEEDS_MAX).map(|n| Feed { id: Name::new(&format!("{n:063}")).unwrap(), ..feed.clone() }).collect();
    s.conditions = (0..5000).map(|n| Shown { subject: format!("10.0.0.1:{n}"), text: "MRN 12345".into(), ..shown.clone() }).collect();
    let text = render(&s, Format::OpenMetrics);
    assert!(text.len() < 512 << 10, "{} bytes", text.len());
    assert!(!text.contains("10.0.0.1") && !text.contains("MRN"));
    let labels: BTreeSet<&str> = text.split(['{', ',']).filter_map(|part| part.split_once("=\"")).map(|(name, _)| name).collect();
    assert_eq!(labels, BTreeSet::from(["code", "feed", "gateway", "lane", "le", "severity", "site", "state", "version"]));
}

/// What is not known has no sample; what somebody silenced, what was dropped and the state of the configuration are told as they are.
#[test]
fn absent_is_not_zero_and_what_is_quiet_is_counted() {
    let mut s = full();
    s.spool.time_to_full_s = None;
    s.conditions[0].silenced = Some(Silenced { window: 1, until: String::new(), reason: "works".into() });
    (s.alerts.sent, s.alerts.waiting, s.alerts.dropped) = (11, 12, 13);
    "trial".clone_into(&mut s.config.state);
    "connecting".clone_into(&mut s.uplink.state);
    let text = render(&s, Format::Prometheus);
    let samples = samples(&text);
    assert!(!text.contains("siteward_spool_time_to_full_seconds"), "it does not fill: that is not 0 seconds to full");
    for (name, value) in [
        ("siteward_conditions_silenced", "1"),
        ("siteward_alerts_sent_total", "11"),
        ("siteward_alerts_waiting", "12"),
        ("siteward_alerts_dropped_total", "13"),
        ("siteward_uplink_up", "0"),
        ("siteward_config_state{state=\"trial\"}", "1"),
        ("siteward_config_state{state=\"local\"}", "0"),
    ] {
        assert!(samples.contains(&(name, value)), "{name} {value} is not in\n{text}");
    }
    for state in ["local", "staged", "trial", "committed_local", "committed"] {
        state.clone_into(&mut s.config.state);
        let text = render(&s, Format::Prometheus);
        let ones: Vec<&str> = text.lines().filter(|line| line.starts_with("siteward_config_state{") && line.ends_with(" 1")).collect();
        assert_eq!(ones, [format!("siteward_config_state{{state=\"{state}\"}} 1")]);
    }
}

/// Each figure of a feed and of a lane is its own and no other's.
#[test]
fn no_figure_stands_under_the_name_of_another() {
    let mut s = full();
    let feed = &mut s.feeds[0];
    (feed.captured, feed.released, feed.duplicates, feed.refused, feed.quarantined) = (21, 22, 23, 24, 25);
    (feed.queued, feed.oldest_age_s, feed.last_message_age_s, feed.last_seq) = (26, Some(27), Some(28), 29);
    (feed.connections, feed.connections_refused) = (30, 31);
    (s.lanes[0].records, s.lanes[0].bytes, s.lanes[0].oldest_age_s) = (32, 33, Some(34));
    (s.spool.bytes, s.spool.max_bytes, s.spool.notes_dropped) = (35, 36, 37);
    let counts = &mut s.uplink.counts;
    (counts.connections, counts.failures, counts.refusals) = (38, 39, 40);
    (counts.published, counts.acknowledged, counts.receipts) = (41, 42, 43);
    (counts.last_acknowledged_age_s, counts.last_receipt_age_s, s.uplink.for_s) = (Some(44), Some(45), 46);
    let text = render(&s, Format::Prometheus);
    let of_feed = |name: &str| format!("siteward_feed_{name}{{feed=\"or-usage\",lane=\"critical\"}}");
    let of_lane = |name: &str| format!("siteward_lane_{name}{{lane=\"critical\"}}");
    let of_uplink = |name: &str| format!("siteward_uplink_{name}");
    let expected = [
        of_feed("captured_total"),
        of_feed("released_total"),
        of_feed("duplicates_total"),
        of_feed("refused_total"),
        of_feed("quarantined_total"),
        of_feed("queued_records"),
        of_feed("oldest_age_seconds"),
        of_feed("last_message_age_seconds"),
        of_feed("last_seq"),
        of_feed("connections"),
        of_feed("connections_refused_total"),
        of_lane("queued_records"),
        of_lane("bytes"),
        of_lane("oldest_age_seconds"),
        "siteward_spool_bytes".to_owned(),
        "siteward_spool_max_bytes".to_owned(),
        "siteward_notes_dropped_total".to_owned(),
        of_uplink("connections_total"),
        of_uplink("failures_total"),
        of_uplink("refusals_total"),
        of_uplink("published_total"),
        of_uplink("acknowledged_total"),
        of_uplink("receipts_total"),
        of_uplink("last_acknowledged_age_seconds"),
        of_uplink("last_receipt_age_seconds"),
        of_uplink("state_age_seconds"),
    ];
    let samples = samples(&text);
    for (name, value) in expected.iter().zip(21..) {
        assert!(samples.contains(&(name.as_str(), value.to_string().as_str())), "{name} {value} is not in\n{text}");
    }
}
