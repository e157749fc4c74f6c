//! Rollouts to all of them: a good document whose tool is killed on the way, and a bad one that nobody keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::process::Output;
use std::time::Instant;

use harness::fleet::{Fleet, GROUP, gateway};
use harness::process::Process;
use harness::{document, net, observer, wait};
use serde_json::Value;

use super::Measured;

const WAVES: &str = "1,10%,50%,100%";

/// The report at the end of `--json`.
fn report(output: &Output) -> Value {
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = lines.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|_| panic!("no report: {lines}{}", String::from_utf8_lossy(&output.stderr)))
}

/// How many stand how, and the states of all.
fn states(report: &Value) -> (BTreeMap<String, usize>, BTreeMap<String, String>) {
    let gateways = report["gateways"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let each: BTreeMap<String, String> = gateways.iter().map(|one| (text(&one["gateway"]), text(&one["state"]))).collect();
    let mut counts = BTreeMap::new();
    for state in each.values() {
        *counts.entry(state.clone()).or_default() += 1;
    }
    (counts, each)
}

fn start(fleet: &Fleet, revision: u64, port: impl Fn(usize) -> u16, more: &[&str]) -> std::process::Command {
    let documents = fleet.documents(revision, port).display().to_string();
    let list = fleet.list().display().to_string();
    let arguments = ["--documents", &documents, "--group", GROUP, "--expect", &list, "--now", "--json"];
    fleet.rollout("start", &[&arguments[..], more].concat())
}

/// Nobody was ever given two contents for one revision. How often anything was published.
fn one_content_for_each_revision(fleet: &Fleet) -> u64 {
    let mut publishes = 0;
    for number in 0..fleet.sites.len() {
        let mut revisions = BTreeSet::new();
        for (revision, times) in fleet.watcher.published(number) {
            publishes += times;
            assert!(revision == 0 || revisions.insert(revision), "{}: two contents for revision {revision}", gateway(number));
        }
    }
    publishes
}

/// I6: every gateway that can be reached confirms, the others are pending; the tool is killed on the way and goes on.
pub fn good_document(fleet: &mut Fleet, reachable: &[usize], measured: &mut Measured) {
    fleet.assign_ports();
    let began = Instant::now();
    let mut command = start(fleet, 1, |number| fleet.sites[number].configuration.feeds[0].port, &["--waves", WAVES]);
    measured.signed = began.elapsed();
    fleet.release(reachable);
    let (began, cpu, log) = (Instant::now(), fleet.broker.process().cpu_seconds(), fleet.directory.path().join("rollout.log"));
    let mut running = Process::start("siteward-hub rollout", &mut command, &log);
    // In the first wave, at the edge of the second, in the third and in the last.
    for share in [1, 10, 30, 60] {
        let enough = (fleet.sites.len() * share).div_ceil(100);
        let published = || (0..fleet.sites.len()).filter(|&number| !fleet.watcher.published(number).is_empty()).count() >= enough;
        wait::wait_until("documents are published", wait::EVENTUALLY, || published() || !running.running());
        if !running.running() {
            let (_, each) = states(&report(&fleet.rollout("status", &["--json"]).output().expect("it runs")));
            let stories: String = reachable.iter().filter(|&&n| !fleet.watcher.runs(n, 1)).take(3).map(|&n| fleet.story(n)).collect();
            panic!("the rollout ends early: {}\n{each:?}\n{stories}", running.log_tail());
        }
        running.kill();
        measured.kills += 1;
        running = Process::start("siteward-hub rollout", &mut fleet.rollout("resume", &["--json"]), &log);
    }
    let all = || reachable.iter().filter(|&&number| fleet.watcher.runs(number, 1)).count() as u64;
    wait::wait_while_growing("gateways that confirm revision 1", wait::EVENTUALLY, all, reachable.len() as u64);
    measured.confirmed = began.elapsed();
    let ended = running.ended(wait::EVENTUALLY);
    measured.rolled_out = began.elapsed();
    measured.broker_rollout_s = fleet.broker.process().cpu_seconds() - cpu;
    assert_eq!(ended.code(), Some(0), "{}", running.log_tail());
    let (counts, each) = states(&report(&fleet.rollout("status", &["--json"]).output().expect("it runs")));
    let expected = [("confirmed", reachable.len()), ("pending", fleet.sites.len() - reachable.len())];
    assert_eq!(counts, expected.map(|(state, count)| (state.to_owned(), count)).into(), "{each:?}");
    measured.published = one_content_for_each_revision(fleet);
}

/// Those that were offline take what waited for them; the rollout knows, and only the one that nobody reaches is pending.
pub fn the_others_converge(fleet: &mut Fleet, waiting: &[usize]) {
    fleet.release(waiting);
    fleet.start(waiting);
    let pending = |fleet: &Fleet| waiting.iter().copied().find(|&number| !fleet.watcher.runs(number, 1));
    let converged = wait::try_until(wait::EVENTUALLY, || pending(fleet).is_none());
    assert!(converged, "was offline and does not converge: {}", pending(fleet).map(|number| fleet.story(number)).unwrap_or_default());
    let (counts, each) = states(&report(&fleet.rollout("status", &["--json"]).output().expect("it runs")));
    let expected = [("confirmed", fleet.sites.len() - 1), ("pending", 1)];
    assert_eq!(counts, expected.map(|(state, count)| (state.to_owned(), count)).into(), "{each:?}");
}

/// I6: a document that cannot work (its port is taken) stops in the first wave. Whoever was given it is back by itself, nobody else was ever given it.
pub fn bad_document(fleet: &Fleet, measured: &mut Measured) {
    let taken = TcpListener::bind(net::loopback(net::free_port())).expect("a port");
    let port = taken.local_addr().expect("it is bound").port();
    let began = Instant::now();
    let stopped = start(fleet, 2, |_| port, &["--waves", "10%,50%,100%", "--wait", "120"]).output().expect("it runs");
    assert_eq!(stopped.status.code(), Some(3), "{}", String::from_utf8_lossy(&stopped.stderr));
    let report = report(&stopped);
    let why = report["why"].as_str().unwrap_or_default();
    assert!(why.contains("or-usage") && why.contains("failed"), "{why}");

    let first = fleet.sites.len().div_ceil(10);
    let touched: Vec<usize> =
        (0..fleet.sites.len()).filter(|&number| fleet.watcher.published(number).iter().any(|(revision, _)| *revision == 2)).collect();
    assert!((1..=first).contains(&touched.len()), "{} of a wave of {first} were given it", touched.len());
    let is_back = |number: &usize| {
        let reported = fleet.watcher.reported(*number);
        let tried = &reported["tried"];
        reported["running"]["revision"] == 1 && (tried["revision"] == 1 || tried["state"] == "rolled_back" || tried["state"] == "refused")
    };
    let late = || touched.iter().copied().find(|number| !is_back(number));
    let back = wait::try_until(wait::EVENTUALLY, || late().is_none());
    assert!(back, "was given the bad document and is not back: {}", late().map(|number| fleet.story(number)).unwrap_or_default());
    measured.bad = (touched.len(), began.elapsed());
    named_by_the_view(fleet);
    let (_, each) = states(&report);
    for number in 0..fleet.sites.len() {
        if touched.contains(&number) {
            assert!(net::listening(fleet.sites[number].addr()), "gateway {number} listens where it did");
        } else {
            assert_eq!(each[&gateway(number)], "waiting");
        }
    }
    nobody_else_has_it(fleet, &touched);
    one_content_for_each_revision(fleet);
}

/// By what the broker keeps now: the good document for everybody else, and the bad one at most for those that began with it.
fn nobody_else_has_it(fleet: &Fleet, touched: &[usize]) {
    let name = |topic: &str| topic.split('/').nth(3).unwrap_or_default().to_owned();
    let mut left: BTreeSet<String> = (0..fleet.sites.len()).filter(|number| !touched.contains(number)).map(gateway).collect();
    let mut looked_at = 0;
    let seen = observer::collect(fleet.broker.plain(), "siteward/v1/+/+/config/desired", wait::SOON, |seen| {
        for publish in &seen[looked_at..] {
            left.remove(&name(&publish.topic));
        }
        looked_at = seen.len();
        left.is_empty()
    });
    assert!(left.is_empty(), "the broker keeps nothing for {left:?}");
    let touched: BTreeSet<String> = touched.iter().copied().map(gateway).collect();
    for publish in seen.iter().filter(|publish| !touched.contains(&name(&publish.topic))) {
        assert_eq!(document::revision(&publish.payload), 1, "the broker keeps another document on {}", publish.topic);
    }
}

/// The view names exactly those that took it back, with both revisions.
fn named_by_the_view(fleet: &Fleet) {
    let rolled_back = |number: &usize| fleet.watcher.reported(*number)["tried"]["state"] == "rolled_back";
    let expected: BTreeSet<String> = (0..fleet.sites.len()).filter(rolled_back).map(gateway).collect();
    let named = || {
        let view = fleet.view(&["--condition", "config_rolled_back"]);
        let rows = view["gateways"].as_array().cloned().unwrap_or_default();
        assert!(rows.iter().all(|row| row["revision"] == 1 && row["tried"]["revision"] == 2), "{view}");
        rows.iter().map(|row| row["gateway"].as_str().unwrap_or_default().to_owned()).collect::<BTreeSet<_>>()
    };
    // A gateway's status follows what it reported.
    let agrees = wait::try_until(wait::SOON, || named() == expected);
    assert!(agrees && !expected.is_empty(), "the view names {:?}, rolled back are {expected:?}", named());
}
