//! Hundreds of gateways behind one broker: seen, given documents, followed, and told of. `SITEWARD_LONG=1`: 300 of them, 20 offline at first;
//! `SITEWARD_FLEET=N`: any number.

#[path = "fleet/notices.rs"]
mod notices;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::fleet::{Fleet, disk_bytes, gateway, memory_kib};
use harness::hub::{Door, Hub};
use harness::inspector::Inspector;
use harness::message;
use harness::net;
use harness::observer;
use harness::process::Process;
use harness::sender;
use harness::site::{Feed, Uplink};
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

/// A figure that the broker tells of itself (every ten seconds).
fn broker_says(fleet: &Fleet, name: &str) -> u64 {
    let told = observer::retained(fleet.broker.plain(), &format!("$SYS/broker/{name}")).unwrap_or_default();
    String::from_utf8_lossy(&told).parse().unwrap_or(0)
}

/// What was measured, for the line at the end.
#[derive(Debug, Default)]
struct Measured {
    started: Duration,
    pushed: Duration,
    confirmed: Duration,
    broker_rollout_s: f64,
    broker_idle: f64,
    /// The broker's memory before anybody came, in KiB.
    broker_alone: u64,
    view: Duration,
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

    good_document(&mut fleet, &reachable, &mut measured);
    let (waiting, running) = ((count - offline..count).collect::<Vec<_>>(), fleet.view(&["--revision", "1"]));
    assert_eq!(states(&running), BTreeMap::from([("online".to_owned(), reachable.len())]), "those that are offline are pending");
    one_message_is_found(&fleet, &mut hub, &reachable);
    let idle = idle(&fleet, &mut measured);
    let memory = memory(&mut fleet, &reachable);

    fleet.start(&waiting);
    let pending = || waiting.iter().find(|&&number| !fleet.watcher.runs(number, 1));
    let converged = wait::try_until(wait::EVENTUALLY, || pending().is_none());
    assert!(
        converged,
        "gateway {:?} was offline and does not converge: {:?}",
        pending(),
        pending().map(|&number| fleet.watcher.reported(number))
    );
    bad_document(&fleet, &reachable[..reachable.len().div_ceil(100).max(2)]);
    let view = fleet.view(&[]);
    assert_eq!(states(&view), BTreeMap::from([("online".to_owned(), count - 1), ("never_seen".to_owned(), 1)]));
    let disk = disk_bytes(fleet.directory.path());
    summary(&measured, &fleet, (reachable.len(), disk / count as u64), memory, idle);
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
    assert!(online["conditions"][0]["code"] == "spool_key_beside_spool" && online["told_age_s"].is_u64() && online["queued"].is_u64());
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

fn good_document(fleet: &mut Fleet, reachable: &[usize], measured: &mut Measured) {
    for number in 0..fleet.sites.len() {
        fleet.sites[number].configuration.feeds = vec![Feed::new("or-usage", "critical")];
    }
    let envelopes: Vec<_> =
        fleet.sites.iter().enumerate().map(|(n, site)| fleet.document(n, 1, site.configuration.feeds[0].port)).collect();
    let (began, cpu) = (Instant::now(), fleet.broker.process().cpu_seconds());
    for (number, envelope) in envelopes.iter().enumerate() {
        let pushed = fleet.push(number, envelope, &fleet.desk);
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    }
    measured.pushed = began.elapsed();
    let all = || reachable.iter().filter(|&&number| fleet.watcher.runs(number, 1)).count() as u64;
    wait::wait_while_growing("gateways that confirm revision 1", wait::EVENTUALLY, all, reachable.len() as u64);
    measured.confirmed = began.elapsed();
    measured.broker_rollout_s = fleet.broker.process().cpu_seconds() - cpu;
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

/// Gateways are back by themselves after a document that cannot work there: its port is taken.
fn bad_document(fleet: &Fleet, wave: &[usize]) {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("it is bound").port();
    for &number in wave {
        let pushed = fleet.push(number, &fleet.document(number, 2, port), &fleet.desk);
        assert!(pushed.status.success());
    }
    let back = |number: usize| {
        let reported = fleet.watcher.reported(number);
        reported["running"]["revision"] == 1 && reported["tried"]["revision"] == 2 && reported["tried"]["state"] == "rolled_back"
    };
    wait::wait_until("every touched gateway is back", wait::EVENTUALLY, || wave.iter().all(|&number| back(number)));
    // A gateway's status follows what it reported.
    let named = || fleet.view(&["--condition", "config_rolled_back"])["gateways"].as_array().map(Vec::len);
    wait::wait_until("the view names those", wait::SOON, || named() >= Some(wave.len()));
    let view = fleet.view(&["--condition", "config_rolled_back"]);
    assert_eq!(view["gateways"].as_array().map(Vec::len), Some(wave.len()), "the view names those and no others");
    for &number in wave {
        assert!(net::listening(fleet.sites[number].addr()), "gateway {number} listens where it did");
        let row = row(&view, number);
        assert_eq!((&row["revision"], &row["tried"]["revision"]), (&1.into(), &2.into()));
    }
}

/// The broker's load with nothing to do but keep everybody: share of one core, and messages a second.
fn idle(fleet: &Fleet, measured: &mut Measured) -> (f64, u64) {
    let span = Duration::from_secs(if harness::long() { 120 } else { 10 });
    let (cpu, began, messages) = (fleet.broker.process().cpu_seconds(), Instant::now(), broker_says(fleet, "messages/received"));
    std::thread::sleep(span);
    let elapsed = began.elapsed().as_secs_f64();
    measured.broker_idle = (fleet.broker.process().cpu_seconds() - cpu) / elapsed;
    let received = broker_says(fleet, "messages/received").saturating_sub(messages);
    (received as f64 / elapsed, broker_says(fleet, "publish/messages/received"))
}

/// Own and shared memory, and processor share of an agent, in the mean.
fn memory(fleet: &mut Fleet, running: &[usize]) -> (u64, u64, f64) {
    let ids: Vec<u32> = running.iter().map(|&number| fleet.sites[number].process().id()).collect();
    let sums = ids.iter().map(|&id| memory_kib(id)).fold((0, 0), |sum, (own, all)| (sum.0 + own, sum.1 + all));
    let used = |fleet: &mut Fleet| running.iter().map(|&number| fleet.sites[number].process().cpu_seconds()).sum::<f64>();
    let (before, began) = (used(fleet), Instant::now());
    std::thread::sleep(Duration::from_secs(10));
    let share = (used(fleet) - before) / began.elapsed().as_secs_f64() / running.len() as f64;
    (sums.0 / ids.len() as u64, sums.1 / ids.len() as u64, share)
}

fn summary(
    measured: &Measured,
    fleet: &Fleet,
    (online, disk): (usize, u64),
    (own, all, share): (u64, u64, f64),
    (rate, published): (f64, u64),
) {
    let Measured { started, pushed, confirmed, broker_rollout_s, broker_idle, broker_alone, view } = measured;
    let broker = fleet.broker.process();
    // The broker tells its figures every ten seconds: over a short span they say nothing.
    let shown = |rate: f64| if harness::long() { format!("{rate:.0}") } else { "?".into() };
    println!(
        "fleet: {} gateways, {online} of them reachable: all online after {:.1} s; documents pushed in {:.1} s, all confirmed after {:.1} s; \
         view of all in {:.2} s; broker {:.2} s of processor time for the rollout, {:.1} % of a core and {} packets/s idle, {published} publishes, \
         {} MiB; an agent {own} KiB of its own ({all} KiB with its share), {:.2} % of a core, {} KiB of disk; {} seen by the watcher",
        fleet.sites.len(),
        started.as_secs_f64(),
        pushed.as_secs_f64(),
        confirmed.as_secs_f64(),
        view.as_secs_f64(),
        broker_rollout_s,
        broker_idle * 100.0,
        shown(rate),
        broker.resident_kib() / 1024,
        share * 100.0,
        disk / 1024,
        fleet.watcher.messages(),
    );
    if online < ENOUGH {
        return println!("fleet: {online} gateways are too few to say what 10,000 would take");
    }
    let each = |value: f64| value / online as f64 * 10_000.0;
    println!(
        "fleet, for 10,000 by proportion and nothing else (messages, fan-out and TLS handshakes after an outage come on top, and were not measured): \
         {:.1} cores of this kind idle, {:.0} s of processor time for a document to all, {:.1} GiB for the broker, {} packets/s",
        each(*broker_idle),
        each(*broker_rollout_s),
        each(broker.resident_kib().saturating_sub(*broker_alone) as f64) / 1024.0 / 1024.0,
        shown(each(rate)),
    );
}

/// A process of the desk with its output in a file.
fn desk(fleet: &Fleet, arguments: &[&str], log: &Path) -> Process {
    Process::start("siteward-hub", &mut fleet.desk_command(arguments, &fleet.desk), log)
}
