//! What a scraper reads of a snapshot.

use std::collections::BTreeSet;

use super::text::Kind;
use super::*;
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
