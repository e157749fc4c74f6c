//! The fleet, put together: what is known, what is not, what is told of it and what is shown.

use super::alarms::{Alarms, Kind, Rules};
use super::change::{What, changes};
use super::metrics::{Counts, Format, page};
use super::row::{Filter, Row, State};
use super::{Fleet, Id, Taken, table};
use crate::clock::{RELEASED_AT_MS, rfc3339};
use crate::hub::ends::{self, End};
use crate::limits::{ALARM_AGAIN_AFTER, ALARM_CLEAR_AFTER, ALARMS_MAX, FLEET_GATEWAYS_MAX, FLEET_STALE, NOTICES_MAX};
use crate::record::Name;

const NOW: i64 = RELEASED_AT_MS + 3_600_000;

fn id(site: &str, gateway: &str) -> Id {
    Id { site: Name::new(site).unwrap(), gateway: Name::new(gateway).unwrap() }
}

fn topic(id: &Id, name: &str) -> String {
    format!("siteward/v1/{}/{}/{name}", id.site, id.gateway)
}

/// An online status, written at `at`, with these conditions (errors where the code ends in `!`, quiet ones where in `~`).
fn online(at_ms: i64, codes: &[&str]) -> String {
    let since = rfc3339(RELEASED_AT_MS);
    let condition = |code: &&str| {
        let severity = if code.ends_with('!') { "error" } else { "warning" };
        let quiet = if code.ends_with('~') { ",\"quiet\":true" } else { "" };
        let code = code.trim_end_matches(['!', '~']);
        format!(r#"{{"code":"{code}","severity":"{severity}","subject":"or-usage","text":"a sentence","since":"{since}"{quiet}}}"#)
    };
    let conditions: Vec<String> = codes.iter().map(condition).collect();
    format!(
        r#"{{"state":"online","version":"0.1.0","since":"{since}","at":"{}","spool":{{"queued":7,"oldest":"{since}","bytes":10,"max_bytes":100,"time_to_full_s":7200}},"conditions":[{}]}}"#,
        rfc3339(at_ms),
        conditions.join(",")
    )
}

const WILL: &str = r#"{"state":"offline","version":"0.1.0"}"#;

fn reported(revision: u64, tried: Option<(u64, &str)>) -> String {
    let tried = tried.map_or("null".into(), |(revision, state)| {
        format!(r#"{{"revision":{revision},"digest":null,"state":"{state}","code":"port_in_use","reason":"r","at":"x"}}"#)
    });
    format!(r#"{{"running":{{"revision":{revision}}},"tried":{tried},"time":"2026-11-01T00:00:00Z","clock_suspect":false,"more":1}}"#)
}

fn says(fleet: &mut Fleet, id: &Id, payload: &str, retained: bool, now_ms: i64) -> Taken {
    fleet.take(&topic(id, "status"), payload.as_bytes(), retained, now_ms)
}

fn row(fleet: &Fleet, id: &Id, now_ms: i64) -> Row {
    fleet.row(id, now_ms).unwrap()
}

#[test]
fn a_gateway_is_what_it_said_last_and_what_is_not_known_is_said() {
    let (mut fleet, a) = (Fleet::default(), id("s", "a"));
    assert_eq!(says(&mut fleet, &a, &online(NOW, &["feed_silent", "spool_full!"]), true, NOW), Taken::Changed(a.clone()));
    assert_eq!(says(&mut fleet, &a, &online(NOW, &["feed_silent", "spool_full!"]), true, NOW), Taken::Same);
    let shown = row(&fleet, &a, NOW);
    assert_eq!((shown.state, shown.queued, shown.time_to_full_s), (State::Online, Some(7), Some(7200)));
    assert_eq!(shown.conditions.unwrap()[0].code, "spool_full", "the worst first");
    assert!(shown.notes[0].contains("no reported state"), "{:?}", shown.notes);
    // Its last will, as it comes: since when is known by our own clock, what was the matter from before.
    says(&mut fleet, &a, WILL, false, NOW + 1000);
    let shown = row(&fleet, &a, NOW + 1000);
    assert_eq!((shown.state, shown.since), (State::Offline, Some(rfc3339(NOW + 1000))));
    assert_eq!(shown.conditions.unwrap().len(), 2);
    // The same as the broker kept it, to whoever comes later: neither.
    let mut later = Fleet::default();
    says(&mut later, &a, WILL, true, NOW);
    let shown = row(&later, &a, NOW);
    assert!(shown.since.is_none() && shown.conditions.is_none() && shown.queued.is_none());
    assert!(shown.notes.iter().any(|note| note.contains("since when is not known")));
}

/// I10: ages are shown and judged, nothing is lost to a clock: one that is ahead is not stale, and what was heard just now is not either.
#[test]
fn a_status_that_was_left_behind_is_not_taken_for_online() {
    let stale = FLEET_STALE.as_millis() as i64 + 1;
    for (at, retained, state) in [
        (NOW - stale, true, State::Stale),
        (NOW - stale, false, State::Online),
        (NOW + 10 * stale, true, State::Online),
        (NOW, true, State::Online),
    ] {
        let (mut fleet, a) = (Fleet::default(), id("s", "a"));
        says(&mut fleet, &a, &online(at, &[]), retained, NOW);
        assert_eq!(row(&fleet, &a, NOW).state, state, "{at} {retained}");
    }
    let (mut fleet, a) = (Fleet::default(), id("s", "a"));
    says(&mut fleet, &a, r#"{"state":"online","version":"0.0.9"}"#, true, NOW);
    let shown = row(&fleet, &a, NOW);
    assert!(shown.state == State::Online && shown.notes[0].contains("older version"));
}

#[test]
fn a_gateway_that_was_never_seen_and_a_stranger_are_named() {
    let (mut fleet, a, b) = (Fleet::default(), id("s", "a"), id("s", "b"));
    fleet.expect([a.clone()]);
    says(&mut fleet, &b, &online(NOW, &[]), true, NOW);
    assert_eq!(row(&fleet, &a, NOW).state, State::NeverSeen);
    assert!(row(&fleet, &b, NOW).notes.contains(&"is not on the list".to_owned()));
    // What the broker forgot is unknown, not offline.
    fleet.take(&topic(&b, "config/reported"), reported(3, None).as_bytes(), true, NOW);
    says(&mut fleet, &b, "", false, NOW);
    assert_eq!((row(&fleet, &b, NOW).state, row(&fleet, &b, NOW).revision), (State::Unknown, Some(3)));
    assert_eq!(says(&mut fleet, &id("s", "c"), "", false, NOW), Taken::Ignored, "an empty payload is no gateway");
}

#[test]
fn two_gateways_with_one_identity_are_both_seen() {
    let (mut fleet, a, b) = (Fleet::default(), id("s", "a"), id("t", "a"));
    says(&mut fleet, &a, &online(NOW, &[]), true, NOW);
    says(&mut fleet, &b, &online(NOW, &["gateway_id_in_use!"]), true, NOW);
    for (id, other) in [(&a, "t"), (&b, "s")] {
        let condition = row(&fleet, id, NOW).conditions.unwrap().remove(0);
        assert_eq!((condition.code.as_str(), condition.subject.as_str()), ("gateway_id_in_use", other));
    }
    let filter = Filter { condition: Some("gateway_id_in_use".into()), ..Filter::default() };
    assert_eq!(fleet.rows(&filter, NOW).len(), 2);
}

#[test]
fn what_is_malformed_leaves_what_was_known_and_says_why() {
    let (mut fleet, a) = (Fleet::default(), id("s", "a"));
    says(&mut fleet, &a, &online(NOW, &[]), true, NOW);
    assert_eq!(says(&mut fleet, &a, "{\u{1b}[2J", false, NOW), Taken::Refused(a.clone()));
    let shown = row(&fleet, &a, NOW);
    assert!(shown.state == State::Online && shown.notes[0].contains("its last status was refused: the payload is not"));
    assert!(!table::notes(&[shown]).contains('\u{1b}'));
    assert_eq!(fleet.take("siteward/v1/S/a/status", b"{}", true, NOW), Taken::Ignored);
    assert_eq!(fleet.take("siteward/v1/s/a/event/f", b"{}", true, NOW), Taken::Ignored);
    assert_eq!(fleet.refused, 1);
}

/// I4
#[test]
fn gateways_beyond_the_bound_are_counted_and_left_out() {
    let mut fleet = Fleet::default();
    fleet.expect((0..FLEET_GATEWAYS_MAX).map(|n| id("s", &format!("g{n}"))));
    assert_eq!(says(&mut fleet, &id("s", "one-more"), WILL, true, NOW), Taken::Ignored);
    assert_eq!((fleet.members().len(), fleet.beyond), (FLEET_GATEWAYS_MAX, 1));
}

#[test]
fn filters_hold_together() {
    let (mut fleet, a, b) = (Fleet::default(), id("s", "a"), id("t", "b"));
    says(&mut fleet, &a, &online(NOW, &["spool_full!"]), true, NOW);
    says(&mut fleet, &b, WILL, true, NOW);
    fleet.take(&topic(&a, "config/reported"), reported(41, None).as_bytes(), true, NOW);
    let count = |filter: Filter| fleet.rows(&filter, NOW).len();
    let any = Filter::default;
    assert_eq!(count(any()), 2);
    assert_eq!(count(Filter { site: Some(Name::new("t").unwrap()), offline: true, ..any() }), 1);
    assert_eq!(count(Filter { site: Some(Name::new("s").unwrap()), offline: true, ..any() }), 0);
    assert_eq!(count(Filter { condition: Some("spool_full".into()), revision: Some(41), version: Some("0.1.0".into()), ..any() }), 1);
    assert_eq!(count(Filter { revision: Some(42), ..any() }), 0);
}

#[test]
fn the_table_is_aligned_and_sums_up() {
    let (mut fleet, a, b) = (Fleet::default(), id("st-marys", "a"), id("t", "gateway-b"));
    says(&mut fleet, &a, &online(NOW, &["w1", "w2", "w3", "spool_full!"]), true, NOW);
    fleet.take(&topic(&a, "config/reported"), reported(41, Some((42, "refused"))).as_bytes(), true, NOW);
    says(&mut fleet, &b, WILL, true, NOW);
    let rows = fleet.rows(&Filter::default(), NOW);
    let text = table::table(&rows, NOW);
    let golden = "\
SITE      GATEWAY    STATE    SINCE                VERSION  CONFIG                        QUEUED  OLDEST     FULL IN    CONDITIONS
st-marys  a          online   2026-11-01 00:00:00  0.1.0    41; 42 refused (port_in_use)  7       1 h 0 min  2 h 0 min  spool_full(or-usage)! w1(or-usage) w2(or-usage) and 1 more
t         gateway-b  offline  ?                    0.1.0    ?                             ?       ?          ?          ?
";
    assert_eq!(text, golden);
    assert_eq!(table::summary(&rows), "2 gateways, 1 online, 1 offline; 1 of those online with an error");
    assert!(table::notes(&rows).contains("t/gateway-b: what is the matter there is not known while it is offline\n"));
    assert_eq!([59, 60, 3600, 90_000].map(table::span), ["59 s", "1 min", "1 h 0 min", "1 d 1 h"]);
}

#[test]
fn only_what_changed_is_told() {
    let (mut fleet, a) = (Fleet::default(), id("s", "a"));
    says(&mut fleet, &a, &online(NOW, &["w1"]), true, NOW);
    let first = row(&fleet, &a, NOW);
    assert_eq!(changes(Some(&first), &first, "t"), []);
    says(&mut fleet, &a, &online(NOW + 5000, &["w1"]), false, NOW);
    assert_eq!(changes(Some(&first), &row(&fleet, &a, NOW), "t"), [], "told again");
    says(&mut fleet, &a, &online(NOW, &["w2!"]), false, NOW);
    fleet.take(&topic(&a, "config/reported"), reported(1, None).as_bytes(), false, NOW);
    let second = row(&fleet, &a, NOW);
    let found = changes(Some(&first), &second, "t");
    let over = What::Over { code: "w1".into(), subject: "or-usage".into() };
    assert!(
        found.iter().any(|change| change.what == over) && found.iter().any(|change| change.what == What::Config { config: "1".into() })
    );
    assert!(found.iter().any(|change| change.line() == "t  s/a  error w2 (or-usage): a sentence"));
    says(&mut fleet, &a, WILL, false, NOW);
    let found = changes(Some(&second), &row(&fleet, &a, NOW), "t");
    assert!(matches!(found[0].what, What::State { state: State::Offline, before: Some(State::Online) }));
    assert!(!found.iter().any(|change| matches!(change.what, What::Over { .. })), "what is not known is not over");
}

#[test]
fn metrics_are_whole_in_both_dialects() {
    let (mut fleet, a, b) = (Fleet::default(), id("s", "a"), id("s", "b"));
    says(&mut fleet, &a, &online(NOW, &["w1", "spool_full!"]).replace("\"0.1.0\"", r#""1\\\"x""#), true, NOW);
    says(&mut fleet, &b, WILL, true, NOW);
    let counts = Counts { connected: true, ..Counts::default() };
    let ends = [End { kind: ends::Kind::Certificate, what: "identities/receiver.pem".into(), at: 1_900_000_000 }];
    let text = page(&fleet, &counts, &ends, Format::Prometheus, NOW);
    for line in [
        "siteward_fleet_gateways{state=\"offline\"} 1",
        "siteward_fleet_gateway_info{site=\"s\",gateway=\"a\",version=\"1\\\\\\\"x\"} 1",
        "siteward_fleet_conditions{site=\"s\",gateway=\"a\",code=\"spool_full\",severity=\"error\"} 1",
        "siteward_fleet_gateway_queued_records{site=\"s\",gateway=\"a\"} 7",
        "# TYPE siteward_fleet_messages_total counter",
        "siteward_fleet_messages_total 2",
        "siteward_fleet_desk_end_timestamp_seconds{of=\"identities/receiver.pem\"} 1900000000",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("queued_records{site=\"s\",gateway=\"b\"}"), "what is not known has no sample");
    let open = page(&fleet, &counts, &ends, Format::OpenMetrics, NOW);
    assert!(open.ends_with("# EOF\n") && open.contains("# TYPE siteward_fleet_messages counter\nsiteward_fleet_messages_total 2\n"));
    assert_eq!(
        text.lines().filter(|l| !l.starts_with('#')).collect::<Vec<_>>(),
        open.lines().filter(|l| !l.starts_with('#')).collect::<Vec<_>>()
    );
    let mut families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let count = families.len();
    families.dedup();
    assert_eq!(families.len(), count, "every family stands once");
    assert_eq!(Format::asked("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"), Format::OpenMetrics);
}

/// A desk with one receiver, and its clock.
struct Noc {
    fleet: Fleet,
    alarms: Alarms,
    now: i64,
    ids: u32,
}

impl Noc {
    fn new() -> Self {
        let mut alarms = Alarms::default();
        alarms.address(&["r".to_owned()]);
        Self { fleet: Fleet::default(), alarms, now: NOW, ids: 0 }
    }

    fn rules() -> Rules {
        Rules { offline_after_ms: 300_000, runbook: "#".into() }
    }

    fn hears(&mut self, id: &Id, payload: &str) {
        says(&mut self.fleet, id, payload, false, self.now);
        self.looks(id);
    }

    fn looks(&mut self, id: &Id) {
        let (row, ids) = (row(&self.fleet, id, self.now), &mut self.ids);
        let fresh = || {
            *ids += 1;
            format!("id{ids}")
        };
        self.alarms.observe(&row, &Self::rules(), fresh, self.now);
    }

    fn waits(&mut self, ms: i64) {
        self.now += ms;
        self.alarms.tick(&Self::rules(), self.now);
    }

    /// What the receiver takes now: kind, code, key.
    fn told(&mut self) -> Vec<(Kind, String, String)> {
        let mut told = Vec::new();
        while let Some(notice) = self.alarms.next("r", u64::MAX).cloned() {
            assert!(self.alarms.done("r", &notice.key, false));
            told.push((notice.kind, notice.code, notice.key));
        }
        told
    }
}

fn codes(told: &[(Kind, String, String)]) -> Vec<(Kind, &str)> {
    told.iter().map(|(kind, code, _)| (*kind, code.as_str())).collect()
}

#[test]
fn an_alarm_is_raised_once_told_again_after_four_hours_and_cleared_when_it_stays_over() {
    let (mut noc, a) = (Noc::new(), id("s", "a"));
    let (clear, again) = (ALARM_CLEAR_AFTER.as_millis() as i64, ALARM_AGAIN_AFTER.as_millis() as i64);
    noc.hears(&a, &online(NOW, &["spool_full!"]));
    noc.hears(&a, &online(NOW, &["spool_full!"]));
    assert_eq!(codes(&noc.told()), [(Kind::Raise, "spool_full")]);
    noc.waits(again - 1);
    assert_eq!(noc.told(), []);
    noc.waits(1);
    assert_eq!(codes(&noc.told()), [(Kind::Again, "spool_full")]);
    // Over, and raised again within the minute: nothing.
    noc.hears(&a, &online(noc.now, &[]));
    noc.waits(clear - 1);
    noc.hears(&a, &online(noc.now, &["spool_full!"]));
    noc.waits(clear);
    assert_eq!(noc.told(), []);
    noc.hears(&a, &online(noc.now, &[]));
    noc.waits(clear);
    assert_eq!(codes(&noc.told()), [(Kind::Clear, "spool_full")]);
    assert!(noc.alarms.is_empty());
}

#[test]
fn what_a_gateway_calls_quiet_is_no_alarm_and_ends_none() {
    let (mut noc, a) = (Noc::new(), id("s", "a"));
    noc.hears(&a, &online(NOW, &["peer_lost~", "spool_full!"]));
    assert_eq!(codes(&noc.told()), [(Kind::Raise, "spool_full")]);
    assert!(noc.fleet.rows(&Filter::default(), noc.now)[0].conditions.as_ref().unwrap().iter().any(|shown| shown.quiet), "it is shown");
    noc.hears(&a, &online(noc.now, &["peer_lost", "spool_full!"]));
    assert_eq!(codes(&noc.told()), [(Kind::Raise, "peer_lost")], "its hold-down is over");
    noc.hears(&a, &online(noc.now, &["peer_lost~", "spool_full!"]));
    noc.waits(ALARM_CLEAR_AFTER.as_millis() as i64);
    assert_eq!(noc.told(), [], "a window that begins ends no alarm");
    noc.hears(&a, &online(noc.now, &["spool_full!"]));
    noc.waits(ALARM_CLEAR_AFTER.as_millis() as i64);
    assert_eq!(codes(&noc.told()), [(Kind::Clear, "peer_lost")]);
}

#[test]
fn what_somebody_chose_is_no_alarm_and_one_from_before_is_over() {
    let (mut noc, a) = (Noc::new(), id("s", "a"));
    noc.hears(&a, &online(NOW, &["spool_key_beside_spool", "feed_paused", "config_trial", "spool_full!"]));
    assert_eq!(codes(&noc.told()), [(Kind::Raise, "spool_full")]);
    assert_eq!(row(&noc.fleet, &a, noc.now).conditions.unwrap().len(), 4, "all of it is shown");
}

#[test]
fn a_gateway_that_is_gone_is_an_alarm_after_a_while_and_its_own_alarms_stay() {
    let (mut noc, a) = (Noc::new(), id("s", "a"));
    noc.hears(&a, &online(NOW, &["w1"]));
    noc.told();
    noc.hears(&a, WILL);
    noc.waits(299_999);
    noc.looks(&a);
    assert_eq!(noc.told(), [], "a reboot is no alarm");
    noc.waits(1);
    noc.looks(&a);
    noc.waits(ALARM_CLEAR_AFTER.as_millis() as i64);
    assert_eq!(codes(&noc.told()), [(Kind::Raise, "gateway_offline")], "what is not known is not cleared");
    noc.hears(&a, &online(noc.now, &["w1"]));
    noc.waits(ALARM_CLEAR_AFTER.as_millis() as i64);
    assert_eq!(codes(&noc.told()), [(Kind::Clear, "gateway_offline")]);
}

/// The window was told while the gateway was online; the last will that took its place does not know of it. Nor does a restart of the desk lose it.
#[test]
fn a_gateway_that_goes_in_its_maintenance_window_is_no_alarm_until_the_window_ends() {
    let (mut noc, a, hour) = (Noc::new(), id("s", "a"), 3_600_000);
    // The gateway's clock is two hours ahead of ours.
    let window = format!(r#""maintenance":[{{"until":"{}","reason":"line works\u001b"}}],"conditions""#, rfc3339(NOW + 6 * hour));
    noc.hears(&a, &online(NOW + 2 * hour, &[]).replace("\"conditions\"", &window));
    noc.hears(&a, WILL);
    let text = page(&noc.fleet, &Counts::default(), &[], Format::Prometheus, noc.now);
    assert!(text.contains("siteward_fleet_gateway_maintenance{site=\"s\",gateway=\"a\"} 1"), "{text}");
    assert!(row(&noc.fleet, &a, noc.now).notes.iter().any(|note| note.starts_with("maintenance until ") && note.ends_with(": line works")));
    noc.alarms.maintain(&(a.site.clone(), a.gateway.clone()), noc.fleet.windows(&a), noc.now);
    let saved = serde_json::to_vec(&noc.alarms).unwrap();
    let mut again = Noc { alarms: serde_json::from_slice(&saved).unwrap(), ids: 100, ..Noc::new() };
    again.fleet.remember(noc.alarms.windows().iter().map(|(.., window)| (a.clone(), window.clone())));
    again.hears(&a, WILL);
    for noc in [&mut noc, &mut again] {
        noc.waits(4 * hour - 1);
        noc.looks(&a);
        assert_eq!(noc.told(), [], "somebody works on the line");
        noc.waits(1);
        noc.looks(&a);
        assert_eq!(codes(&noc.told()), [(Kind::Raise, "gateway_offline")]);
    }
    noc.hears(&a, &online(noc.now, &[]));
    assert!(noc.fleet.windows(&a).is_empty(), "ended before its time");
}

#[test]
fn a_restart_raises_nothing_again_and_sends_what_waits_under_the_same_key() {
    let (mut noc, a) = (Noc::new(), id("s", "a"));
    noc.hears(&a, &online(NOW, &["w1"]));
    let key = noc.alarms.next("r", u64::MAX).unwrap().key.clone();
    let saved = serde_json::to_vec(&noc.alarms).unwrap();
    let mut again = Noc { alarms: serde_json::from_slice(&saved).unwrap(), ids: 100, ..Noc::new() };
    assert_eq!(again.alarms, noc.alarms);
    again.hears(&a, &online(NOW, &["w1"]));
    assert_eq!(again.told(), [(Kind::Raise, "w1".to_owned(), key)]);
    assert!(again.alarms.next("r", u64::MAX).is_none());
}

/// A gateway that was taken off the list and is gone is cleared, with the reason; one that is on the list, or online, is not.
#[test]
fn what_nobody_waits_for_is_cleared_with_notice() {
    let (mut noc, gone) = (Noc::new(), id("s", "gone"));
    noc.hears(&gone, &online(NOW, &["w1"]));
    noc.told();
    noc.fleet.expect([id("s", "a")]);
    assert!(!noc.fleet.is_given_up(&gone), "it is online");
    says(&mut noc.fleet, &gone, r#"{"state":"offline","version":"0.1.0"}"#, false, noc.now);
    assert!(noc.fleet.is_given_up(&gone) && !noc.fleet.is_given_up(&id("s", "a")) && !noc.fleet.is_given_up(&id("s", "never")));
    let key = (gone.site.clone(), gone.gateway.clone());
    assert_eq!(noc.alarms.gateways().collect::<Vec<_>>(), [&key]);
    noc.alarms.dismiss(&key, "nobody waits for it", noc.now);
    noc.waits(60_000);
    let notice = noc.alarms.next("r", u64::MAX).cloned().unwrap();
    assert_eq!((notice.kind, notice.code.as_str(), notice.text.as_str()), (Kind::Clear, "w1", "nobody waits for it"));
    assert!(noc.alarms.is_empty());
}

#[test]
fn nothing_is_given_out_that_the_file_does_not_have() {
    let (mut noc, a) = (Noc::new(), id("s", "a"));
    noc.hears(&a, &online(NOW, &["w1"]));
    let saved = noc.alarms.told();
    noc.hears(&a, &online(NOW, &["w1", "w2"]));
    let first = noc.alarms.next("r", saved).unwrap().clone();
    assert_eq!(first.code, "w1");
    assert!(noc.alarms.done("r", &first.key, false));
    assert_eq!(noc.alarms.next("r", saved), None);
    assert!(!noc.alarms.done("r", &first.key, false), "answered twice counts once");
}

/// I10: a clock set back or forward by years makes an alarm at most once more than it should be, and loses none.
#[test]
fn alarms_outlive_a_clock_that_jumps() {
    let (mut noc, a) = (Noc::new(), id("s", "a"));
    let year = 365 * 86_400_000;
    noc.hears(&a, &online(NOW, &["w1"]));
    noc.told();
    noc.waits(-10 * year);
    assert_eq!(noc.told(), []);
    noc.waits(ALARM_AGAIN_AFTER.as_millis() as i64);
    assert_eq!(codes(&noc.told()), [(Kind::Again, "w1")]);
    noc.hears(&a, &online(NOW, &[]));
    noc.waits(20 * year);
    assert_eq!(codes(&noc.told()), [(Kind::Clear, "w1")]);
}

#[test]
fn what_only_the_desk_sees_has_its_page_in_the_runbook() {
    let runbook = include_str!("../../../../systemd/RUNBOOK.md");
    for code in [super::alarms::OFFLINE, super::alarms::STALE] {
        assert!(runbook.contains(&format!("\n## {code}\n")), "no page for {code}");
    }
}

/// I4: a receiver that is away, and more alarms than there is room for, cost the oldest notices and the newest alarms, counted.
#[test]
fn lines_and_alarms_are_bounded() {
    let mut noc = Noc::new();
    for n in 0..NOTICES_MAX + 6 {
        noc.hears(&id("s", &format!("g{n}")), &online(NOW, &["w1"]));
    }
    assert_eq!((noc.alarms.waiting(), noc.alarms.dropped, noc.alarms.beyond), (NOTICES_MAX, 6, 0));
    let first = noc.told().remove(0);
    assert_eq!(first.2, "id7-raise", "the oldest are dropped");
    let many: Vec<String> = (0..ALARMS_MAX / 32).map(|n| format!("many{n}")).collect();
    let codes: Vec<String> = (0..32).map(|n| format!("w{n}")).collect();
    let codes: Vec<&str> = codes.iter().map(String::as_str).collect();
    for gateway in &many {
        noc.hears(&id("s", gateway), &online(NOW, &codes));
    }
    assert_eq!((noc.alarms.len(), noc.alarms.beyond), (ALARMS_MAX, (NOTICES_MAX + 6) as u64));
    noc.alarms.address(&[]);
    assert_eq!(noc.alarms.waiting(), 0);
}
