//! Hundreds of gateways behind one broker: seen, given documents in waves, followed, and told of. `SITEWARD_LONG=1`: 300 of them, 20 offline at first,
//! one behind a proxy that inspects TLS; `SITEWARD_FLEET=N`: any number, for which open files (`ulimit -n`) have to be about four times as many.

#[path = "fleet/load.rs"]
mod load;
#[path = "fleet/notices.rs"]
mod notices;
#[path = "fleet/twins.rs"]
mod twins;
#[path = "fleet/waves.rs"]
mod waves;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::fleet::{Fleet, disk_bytes, gateway};
use harness::hub::{Door, Hub};
use harness::inspector::Inspector;
use harness::message;
use harness::net;
use harness::process::Process;
use harness::sender;
use harness::site::Uplink;
use harness::wait;
use serde_json::Value;

/// How many, and how many of them are offline at first.
fn size() -> (usize, usize) {
    let asked = std::env::var("SITEWARD_FLEET").ok().and_then(|count| count.parse().ok());
    let count = asked.unwrap_or(if harness::long() { 300 } else { 12 });
    (count, if count >= 100 { 20 } else { 2 })
}

/// So many gateways before anything is said of 10,000.
const ENOUGH: usize = 100;

/// One gateway's row of `fleet --json`.
fn row(view: &Value, number: usize) -> Value {
    let rows = view["gateways"].as_array().cloned().unwrap_or_default();
    rows.into_iter().find(|row| row["gateway"] == gateway(number).as_str()).unwrap_or_else(|| panic!("gateway {number} is not in {view}"))
}

fn states(view: &Value) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for row in view["gateways"].as_array().into_iter().flatten() {
        *counts.entry(row["state"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    counts
}

/// What was measured, for the lines at the end.
#[derive(Debug, Default)]
struct Measured {
    started: Duration,
    /// Documents rendered and signed.
    signed: Duration,
    confirmed: Duration,
    rolled_out: Duration,
    /// How often the rollout's tool was killed, and what was published nevertheless.
    kills: u32,
    published: u64,
    broker_rollout_s: f64,
    broker_idle: f64,
    idle_rate: f64,
    /// The broker's memory before anybody came, in KiB.
    broker_alone: u64,
    view: Duration,
    /// Memory of its own and with its share in KiB, share of a core.
    agent: (u64, u64, f64),
    /// How many, until all were at the hub, processor time of the broker and of the receiver.
    events: (u64, Duration, f64, f64),
    /// Until half of them and all of them were online again, processor time of the broker.
    storm: (Duration, Duration, f64),
    /// How many were given the bad document, and when all of them were back.
    bad: (usize, Duration),
}

/// The whole day of a desk: all are seen for what they are, a good document reaches every one that can be reached and the others later, a bad one
/// costs nobody anything, and one message is found among all of them.
#[test]
fn a_fleet_is_seen_and_configured_and_a_bad_document_costs_nobody_anything() {
    let (count, offline) = size();
    let mut fleet = Fleet::new(count);
    let inspected = count - offline - 1;
    let inspector = Inspector::start(&fleet.directory.path().join("inspector"), "Pretend Inspection CA");
    if let Uplink::Tls { port, .. } = &mut fleet.sites[inspected].configuration.uplink {
        *port = inspector.port();
    }
    fleet.sites[inspected].write_configuration();
    let door = Door::Tls { broker: fleet.broker.tls(), ca: fleet.pki.ca.clone(), client: fleet.hub.clone() };
    let mut hub = Hub::new(&fleet.directory.path().join("hub"), door);
    hub.start();

    let mut measured = Measured { broker_alone: fleet.broker.process().resident_kib(), ..Measured::default() };
    let reachable: Vec<usize> = (0..inspected).collect();
    // Of those that are offline half have been there before.
    let gone: Vec<usize> = (count - offline / 2..count).collect();
    let began = Instant::now();
    fleet.start(&reachable);
    measured.started = began.elapsed();
    fleet.start(&gone);
    for &number in &gone {
        fleet.sites[number].kill();
    }
    wait::wait_until("the last wills", wait::SOON, || gone.iter().all(|&number| !fleet.watcher.is_online(number)));
    fleet.sites[inspected].spawn();
    seen_as_they_are(&fleet, &mut measured, (inspected, &gone), offline);
    inspection_is_named(&fleet, inspected, &inspector);
    only_ones_own_topics(&fleet);

    waves::good_document(&mut fleet, &reachable, &mut measured);
    let (waiting, running) = ((count - offline..count).collect::<Vec<_>>(), fleet.view(&["--revision", "1"]));
    assert_eq!(states(&running), BTreeMap::from([("online".to_owned(), reachable.len())]), "those that are offline are pending");
    one_message_is_found(&fleet, &mut hub, &reachable);
    load::idle(&fleet, &mut measured);
    load::memory(&mut fleet, &reachable, &mut measured);
    load::events(&fleet, &mut hub, &reachable, &mut measured);
    load::storm(&mut fleet, &reachable, &mut measured);

    waves::the_others_converge(&mut fleet, &waiting);
    waves::bad_document(&fleet, &mut measured);
    let view = fleet.view(&[]);
    assert_eq!(states(&view), BTreeMap::from([("online".to_owned(), count - 1), ("never_seen".to_owned(), 1)]));
    let disk = disk_bytes(fleet.directory.path()) / count as u64;
    summary(&measured, &fleet, reachable.len(), disk);
    for_ten_thousand(&measured, &fleet, reachable.len());
}

/// The view says what the broker's last word on each one is, and names those of whom there is none.
fn seen_as_they_are(fleet: &Fleet, measured: &mut Measured, (inspected, gone): (usize, &[usize]), offline: usize) {
    let began = Instant::now();
    let view = fleet.view(&[]);
    measured.view = began.elapsed();
    let never = offline - gone.len() + 1;
    let expected = [("online", inspected), ("offline", gone.len()), ("never_seen", never)];
    assert_eq!(states(&view), expected.map(|(state, count)| (state.to_owned(), count)).into());
    assert_eq!(view["complete"], true);
    let online = row(&view, 0);
    assert_eq!((&online["revision"], &online["version"]), (&0.into(), &env!("CARGO_PKG_VERSION").into()));
    assert!(online["told_age_s"].is_u64() && online["queued"].is_u64(), "{online}");
    let beside = |condition: &Value| condition["code"] == "spool_key_beside_spool";
    let is_told = || row(&fleet.view(&[]), 0)["conditions"].as_array().is_some_and(|told| told.iter().any(beside));
    wait::wait_until("the condition of a gateway is shown", wait::SOON, is_told);
    let lost = row(&view, gone[0]);
    assert!(lost["since"].is_null() && lost["conditions"].is_null(), "a last will tells neither: {lost}");
    assert!(lost["notes"].to_string().contains("since when is not known"), "{lost}");
    assert!(row(&view, inspected)["notes"].to_string().contains("the broker keeps nothing of it"));
    let table = fleet.desk(&["fleet", "--offline", "--expect", &fleet.list().display().to_string()], &fleet.desk);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert_eq!(table.lines().filter(|line| line.starts_with("site-")).count(), offline + 1 + notes(&table), "{table}");
}

/// Notes at the table's end begin with a site too.
fn notes(table: &str) -> usize {
    table.lines().filter(|line| line.starts_with("site-") && line.contains(": ")).count()
}

/// A proxy that inspects TLS gets nothing, and whoever stands before the box reads its name.
fn inspection_is_named(fleet: &Fleet, inspected: usize, inspector: &Inspector) {
    let site = &fleet.sites[inspected];
    let error = || site.status()["uplink"]["last_error"].as_str().unwrap_or_default().to_owned();
    assert!(wait::try_until(wait::SOON, || error().contains("\"Pretend Inspection CA\"")), "the issuer is not named: {}", error());
    assert!(inspector.connections() > 0);
    assert_eq!(inspector.read(), 0, "the proxy could read something");
}

/// The access list holds: a gateway publishes for nobody but itself.
fn only_ones_own_topics(fleet: &Fleet) {
    let envelope = fleet.document(1, 1, net::free_port());
    let stranger = fleet.pki.client(&gateway(0));
    let refused = fleet.push(1, &envelope, &stranger);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("NotAuthorized"), "{said}");
}

/// Every gateway sends one message; the one asked for is found by its control id, with its gateway and without its content.
fn one_message_is_found(fleet: &Fleet, hub: &mut Hub, reachable: &[usize]) {
    for &number in reachable {
        let reply = sender::send_one(fleet.sites[number].addr(), &message::build(number, 1, 700), wait::SOON).expect("an answer");
        assert!(reply.positive());
    }
    hub.wait_for_events(reachable.len() as u64);
    let wanted = reachable[reachable.len() / 2];
    let find = |arguments: &[&str]| {
        let mut command = std::process::Command::new(harness::program("siteward-hub"));
        let output = command.arg("find").arg("--account").arg(hub.out()).args(arguments).output().expect("the program runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, found) = find(&["--control-id", &message::control_id(wanted, 1), "--json"]);
    let value: Value = serde_json::from_str(&found).unwrap_or_default();
    let finding = &value["found"]["findings"][0];
    assert!(code == Some(0) && finding["gateway"] == gateway(wanted).as_str() && finding["kind"] == "event", "{found}");
    assert_eq!(value["found"]["findings"].as_array().map(Vec::len), Some(1));
    assert!(message::CANARIES.iter().all(|canary| !found.contains(canary)), "content is shown");
    let (code, text) = find(&["--feed", "or-usage", "--seq", "1", "--gateway", &gateway(wanted)]);
    assert!(code == Some(0) && text.contains("received at the gateway") && text.contains("1 findings"), "{text}");
    assert_eq!(find(&["--control-id", "nobody-sent-this"]).0, Some(3));
}

fn summary(measured: &Measured, fleet: &Fleet, online: usize, disk: u64) {
    let Measured { started, signed, confirmed, rolled_out, kills, published, broker_rollout_s, view, agent, events, storm, bad, .. } =
        measured;
    let broker = fleet.broker.process();
    println!(
        "fleet: {} gateways, {online} of them reachable: all online after {:.1} s; {0} documents rendered and signed in {:.1} s; rollout in 4 waves, \
         its tool killed {kills} times: all reachable confirmed after {:.1} s, over after {:.1} s, {published} publishes, one content each; a bad one \
         reached {} gateways and all were back after {:.1} s; view of all in {:.2} s",
        fleet.sites.len(),
        started.as_secs_f64(),
        signed.as_secs_f64(),
        confirmed.as_secs_f64(),
        rolled_out.as_secs_f64(),
        bad.0,
        bad.1.as_secs_f64(),
        view.as_secs_f64(),
    );
    // The broker tells its figures every ten seconds: over a short span they say nothing.
    let rate = if harness::long() { format!("{:.0}", measured.idle_rate) } else { "?".into() };
    println!(
        "fleet: broker {:.2} s of processor time for the rollout, {:.1} % of a core and {rate} packets/s idle, {} MiB; {} events in {:.1} s ({:.0}/s) took \
         {:.2} s of it and {:.2} s of the receiver's; back after a restart of the broker: half after {:.1} s, all after {:.1} s, {:.2} s of its processor \
         time; an agent {} KiB of its own ({} KiB with its share), {:.2} % of a core, {} KiB of disk; {} seen by the watcher",
        broker_rollout_s,
        measured.broker_idle * 100.0,
        broker.resident_kib() / 1024,
        events.0,
        events.1.as_secs_f64(),
        events.0 as f64 / events.1.as_secs_f64(),
        events.2,
        events.3,
        storm.0.as_secs_f64(),
        storm.1.as_secs_f64(),
        storm.2,
        agent.0,
        agent.1,
        agent.2 * 100.0,
        disk / 1024,
        fleet.watcher.messages(),
    );
}

/// By proportion from what was measured: Mosquitto uses one core.
fn for_ten_thousand(measured: &Measured, fleet: &Fleet, online: usize) {
    if online < ENOUGH {
        return println!("fleet: {online} gateways are too few to say what 10,000 would take");
    }
    let each = |value: f64| value / online as f64 * 10_000.0;
    let Measured { broker_idle, broker_rollout_s, broker_alone, events, storm, .. } = measured;
    let gib = each(fleet.broker.process().resident_kib().saturating_sub(*broker_alone) as f64) / 1024.0 / 1024.0;
    let per_event = events.2 / events.0 as f64;
    println!(
        "fleet, for 10,000 by proportion, cores of this kind: {:.2} idle; {:.0} s of processor time for a document to all; {:.0} s of it until all are \
         back after an outage, so at least as many seconds for a broker on one core, its queue of handshakes not counted; {:.2} ms an event, with its \
         answer and receipt: {:.2} cores where each gateway sends 10 messages a minute (1,667/s); {gib:.1} GiB",
        each(*broker_idle),
        each(*broker_rollout_s),
        each(storm.2),
        per_event * 1000.0,
        per_event * 10_000.0 * 10.0 / 60.0,
    );
}

/// A process of the desk with its output in a file.
fn desk(fleet: &Fleet, arguments: &[&str], log: &Path) -> Process {
    Process::start("siteward-hub", &mut fleet.desk_command(arguments, &fleet.desk), log)
}
