//! What outside tools read of a snapshot.

use super::*;
use crate::record;
use crate::spool::{FeedView, LaneView};
use crate::status::board::UplinkState;

const NOW: WallTime = WallTime { unix_ms: clock::RELEASED_AT_MS + 3_600_000, suspect: false };

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn view() -> SpoolView {
    let lane = |lane, records, bytes, oldest_received_ms| LaneView { lane, records, bytes, oldest_received_ms };
    SpoolView {
        bytes: 1_048_576,
        max_bytes: 21_474_836_480,
        waiting_bytes: 4096,
        room_bytes: 21_000_000_000,
        segments: 1,
        lanes: vec![
            lane(record::Lane::Critical, 3, 4096, Some(clock::RELEASED_AT_MS)),
            lane(record::Lane::Normal, 0, 0, None),
            lane(record::Lane::Bulk, 1, 9, Some(0)),
        ],
        feeds: vec![
            FeedView {
                id: name("or-usage"),
                lane: record::Lane::Critical,
                retired: false,
                last_seq: 10,
                settled_seq: 7,
                oldest_received_ms: Some(clock::RELEASED_AT_MS),
                incarnation: record::Incarnation([0xAB; 16]),
                files: None,
            },
            FeedView {
                id: name("old"),
                lane: record::Lane::Bulk,
                retired: true,
                last_seq: 5,
                settled_seq: 4,
                oldest_received_ms: None,
                incarnation: record::Incarnation([0xAB; 16]),
                files: None,
            },
        ],
        incarnation: Incarnation([0xAB; 16]),
    }
}

pub(crate) fn example() -> Snapshot {
    let board = Board::new([name("or-usage")]);
    board.set_uplink(UplinkState::Connected, "mqtts://hub.example.org:8883", Some("connection refused".to_owned()));
    board.raise(Code::SpoolKeyBesideSpool, "", "the spool key lies beside the spool");
    board.raise(Code::ListenerDown, "or-usage", "port 2575 is in use");
    board.count(&name("or-usage"), 1, 0, clock::RELEASED_AT_MS);
    let mut snapshot = build(&name("st-marys"), &name("st-marys-gw1"), &board, &view(), Some(7200), NOW);
    snapshot.uptime_s = 90_061;
    snapshot.version = "0.1.0".to_owned();
    snapshot.uplink.since = clock::rfc3339(clock::RELEASED_AT_MS);
    for condition in &mut snapshot.conditions {
        condition.since = clock::rfc3339(clock::RELEASED_AT_MS);
    }
    snapshot
}

#[test]
fn the_json_is_what_outside_tools_rely_on() {
    let golden = serde_json::json!({
        "gateway": "st-marys-gw1",
        "site": "st-marys",
        "version": "0.1.0",
        "uptime_s": 90061,
        "uplink": {
            "state": "connected",
            "since": "2026-11-01T00:00:00.000Z",
            "endpoint": "mqtts://hub.example.org:8883",
            "last_error": "connection refused",
            "for_s": 0,
            "counts": {
                "connections": 1, "failures": 0, "refusals": 0, "published": 0, "acknowledged": 0, "receipts": 0,
                "last_acknowledged_age_s": null, "last_receipt_age_s": null
            },
            "certificate_ends": null
        },
        "spool": { "bytes": 1_048_576, "max_bytes": 21_474_836_480_u64, "time_to_full_s": 7200, "notes_dropped": 0,
            "syncs": { "counts": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "total_us": 0 }
        },
        "config": { "revision": null, "state": "local" },
        "lanes": [
            { "name": "critical", "records": 3, "bytes": 4096, "oldest_age_s": 3600 },
            { "name": "normal", "records": 0, "bytes": 0, "oldest_age_s": null },
            { "name": "bulk", "records": 1, "bytes": 9, "oldest_age_s": null }
        ],
        "feeds": [
            {
                "id": "or-usage", "lane": "critical", "retired": false, "connections": 0, "connections_refused": 0, "captured": 1, "released": 0, "queued": 3,
                "duplicates": 0, "quarantined": 0, "refused": 0, "oldest_age_s": 3600, "last_seq": 10, "incarnation": "abababababababababababababababab",
                "last_message_at": "2026-11-01T00:00:00.000Z", "last_message_age_s": 3600
            },
            {
                "id": "old", "lane": "bulk", "retired": true, "connections": 0, "connections_refused": 0, "captured": 0, "released": 0, "queued": 1,
                "duplicates": 0, "quarantined": 0, "refused": 0, "oldest_age_s": null, "last_seq": 5, "incarnation": "abababababababababababababababab",
                "last_message_at": null, "last_message_age_s": null
            }
        ],
        "conditions": [
            {
                "code": "listener_down", "severity": "error", "subject": "or-usage", "text": "port 2575 is in use",
                "runbook": "RUNBOOK.md#listener_down", "since": "2026-11-01T00:00:00.000Z", "alerting": false
            },
            {
                "code": "spool_key_beside_spool", "severity": "warning", "subject": "", "text": "the spool key lies beside the spool",
                "runbook": "RUNBOOK.md#spool_key_beside_spool", "since": "2026-11-01T00:00:00.000Z", "alerting": false
            }
        ],
        "maintenance": [],
        "alerts": { "syslog": null, "sent": 0, "waiting": 0, "dropped": 0, "error": null },
        "clock_suspect": false,
        "starts": 0
    });
    let json = serde_json::to_value(example()).unwrap();
    assert_eq!(json, golden);
    assert_eq!(serde_json::from_value::<Snapshot>(json).unwrap(), example(), "and it reads back");
}

#[test]
fn a_feed_shows_what_it_says_about_itself_and_whether_its_objective_is_met() {
    let shown = |minutes, waiting, age| {
        let objective = Some(Duration::from_mins(minutes));
        AboutShown::of(About { delivery_objective: objective, ..About::default() }, waiting, age).unwrap().objective
    };
    assert_eq!(shown(60, true, Some(3600)).as_deref(), Some("met"));
    assert_eq!(shown(59, true, Some(3600)).as_deref(), Some("missed"));
    assert_eq!(shown(1, false, None).as_deref(), Some("met"), "nothing waits");
    assert_eq!(shown(1, true, None), None, "the clock cannot be believed");
    assert_eq!(AboutShown::of(About::default(), true, None), None);
    let board = Board::new([name("or-usage")]);
    let about = About { owner: Some("OR desk".into()), sunset: Some(jiff::civil::date(2028, 6, 30)), ..About::default() };
    board.feed(&name("or-usage")).describe(about);
    let snapshot = build(&name("s"), &name("g"), &board, &view(), None, NOW);
    let shown = serde_json::to_value(&snapshot.feeds[0].about).unwrap();
    assert_eq!((shown["owner"].as_str(), shown["sunset"].as_str()), (Some("OR desk"), Some("2028-06-30")));
    assert!(shown["objective"].is_null() && snapshot.feeds[1].about.is_none());
}

/// I10: a clock that stands in 1970 changes no figure but the ones it would make nonsense of.
#[test]
fn ages_are_left_out_while_the_clock_cannot_be_believed() {
    let board = Board::new([]);
    let suspect = WallTime { unix_ms: 5, suspect: true };
    let snapshot = build(&name("s"), &name("g"), &board, &view(), None, suspect);
    assert!(snapshot.lanes.iter().all(|lane| lane.oldest_age_s.is_none()));
    assert_eq!(snapshot.lanes[0].records, 3);
}

#[test]
fn systemd_gets_one_line() {
    assert_eq!(one_line(&example()), "uplink connected; 4 queued; conditions: listener_down, spool_key_beside_spool");
}
