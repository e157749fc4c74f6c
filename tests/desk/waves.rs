//! Good and bad documents in waves; who is offline, who is not heard, and who else is at work.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::mosquitto::Options;
use harness::process::Process;
use harness::wait;

use super::east::{East, report, states, text};

/// I6: a good document reaches everybody wave by wave, who is offline later; a bad one reaches one gateway, which goes back by itself, and the tool stops.
#[test]
fn a_good_document_reaches_everybody_and_a_bad_one_stops_at_the_first() {
    let mut east = East::with(5, Options::default());
    east.sites[4].stop();
    east.is_online(4, false);
    let good = east.documents(1, 0);
    let good = good.to_str().expect("UTF-8");

    let dry = east.rollout("start", &["--documents", good, "--dry-run"]).output().expect("it runs");
    assert!(dry.status.success(), "{}", text(&dry));
    assert!(text(&dry).contains("wave 1: st-marys/gw1 (online): revision 1"), "{}", text(&dry));
    assert!(text(&dry).contains("st-marys/gw5 (OFFLINE)") && text(&dry).contains("its local file alone"), "{}", text(&dry));
    assert!(east.published("gw1").is_empty(), "a dry run publishes nothing");

    let begun = Instant::now();
    let done = east.rollout("start", &["--documents", good, "--group", "east", "--waves", "1,50%,100%", "--soak", "2s,1s", "--json"]);
    let done = { done }.output().expect("it runs");
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    let took = begun.elapsed();
    let found = states(&report(&done));
    assert_eq!(found["gw5"], "pending", "{found:?}");
    assert_eq!(found.values().filter(|state| *state == "confirmed").count(), 4, "{found:?}");
    (0..4).for_each(|index| assert_eq!(east.runs(index), 1));
    east.sites[4].start();
    wait::wait_until("who was offline takes it", wait::EVENTUALLY, || east.kept(4, "config/reported")["running"]["revision"] == 1);
    let seen = east.rollout("status", &["--json"]).output().expect("it runs");
    let later = report(&seen);
    assert_eq!(states(&later)["gw5"], "confirmed", "{}", text(&seen));
    assert!(later["gateways"].as_array().is_some_and(|all| all.iter().all(|gateway| gateway["seen"].is_string())), "{later}");

    // The desk knows what runs now, so a dry run says what would change.
    let busy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let bad = east.documents(2, busy.local_addr().expect("an address").port());
    let bad = bad.to_str().expect("UTF-8");
    let dry = east.rollout("start", &["--documents", bad, "--dry-run"]).output().expect("it runs");
    assert!(text(&dry).contains("it runs revision 1:") && text(&dry).contains("feed lab is opened anew"), "{}", text(&dry));
    let stopped = east.rollout("start", &["--documents", bad, "--now", "--wait", "60", "--json"]).output().expect("it runs");
    assert_eq!(stopped.status.code(), Some(3), "{}", text(&stopped));
    let report = report(&stopped);
    let why = report["why"].as_str().unwrap_or_default();
    assert!(why.contains("not_applied") && why.contains("feed `lab`"), "{why}");
    let found = states(&report);
    assert_eq!(found["gw1"], "failed", "{found:?}");
    assert!(found.iter().filter(|(gateway, _)| *gateway != "gw1").all(|(_, state)| state == "waiting"), "{found:?}");
    assert_eq!((east.runs(0), east.published("gw2").len()), (1.into(), 1), "the first is back, the second was given nothing");
    wait::wait_until("the bad document is taken away", wait::SOON, || east.taken_away("gw1"));

    let again = east.rollout("resume", &[]).output().expect("it runs");
    assert!(!again.status.success() && text(&again).contains("--accept-failures"), "{}", text(&again));
    let other = east.documents(2, 0);
    let refused = east.rollout("start", &["--documents", other.to_str().expect("UTF-8"), "--now"]).output().expect("it runs");
    assert!(text(&refused).contains("planned from here before with another content"), "{}", text(&refused));
    let publishes = east.one_content_for_each_revision();
    println!(
        "desk: 4 of 5 gateways confirmed in 3 waves after {:.1} s, the fifth when it came back; {publishes} publishes",
        took.as_secs_f64()
    );
}

/// A broker that forgets what it kept: who is there gets the same bytes again. Two operators: the second is told who is at work, and can stop it.
#[test]
fn a_broker_that_forgets_is_told_again_and_a_second_operator_is_told_who_is_at_work() {
    let mut east = East::with(3, Options { persistence: false, packet_bytes_max: 0 });
    // The last is stopped without a word: while it is away, the broker forgets everything.
    east.sites[2].kill();
    let good = east.documents(1, 0);
    let mut command =
        east.rollout("start", &["--documents", good.to_str().expect("UTF-8"), "--waves", "1,100%", "--soak", "0", "--wait", "600"]);
    let log = east.directory.path().join("rollout.log");
    let mut running = Process::start("siteward-hub rollout", command.args(["--grace", "5", "--site", "st-marys"]), &log);
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    wait::wait_until("two have it", wait::EVENTUALLY, || said().matches("confirmed").count() >= 2);
    let second = east.rollout("resume", &[]).output().expect("it runs");
    let told = text(&second);
    assert!(
        !second.status.success() && told.contains("is at work with it") && told.contains(&format!("process {}", running.id())),
        "{told}"
    );

    east.broker.restart();
    wait::wait_until("the tool is back", wait::EVENTUALLY, || said().contains("tried again in"));
    east.sites[2].start();
    wait::wait_until("the third has it", wait::EVENTUALLY, || east.runs(2) == 1);
    wait::wait_until("and says so", wait::EVENTUALLY, || said().contains("gw3: confirmed"));
    assert_eq!(running.ended(wait::SOON).code(), Some(0), "{}", said());

    // A rest that is long enough for somebody to stop it.
    let next = east.documents(2, 0);
    let mut command = east.rollout("start", &["--documents", next.to_str().expect("UTF-8"), "--waves", "1,100%", "--soak", "1h"]);
    let mut running = Process::start("siteward-hub rollout", &mut command, &log);
    wait::wait_until("the first wave rests", wait::EVENTUALLY, || said().contains("rest of 1 h"));
    let asked = east.rollout("stop", &["--why", "the site called"]).output().expect("it runs");
    assert!(asked.status.success(), "{}", text(&asked));
    assert_eq!(running.ended(Duration::from_secs(60)).code(), Some(3), "{}", said());
    assert!(said().contains("stopped it: the site called"), "{}", said());
    let publishes = east.one_content_for_each_revision();
    println!("desk: a broker without memory was told again; {publishes} publishes, one content for each revision");
}

/// I6: two operators with two directories: the one with a rollout under way is told and stops, and takes away nothing that is not its own.
#[test]
fn somebody_else_who_pushes_meanwhile_stops_the_rollout_and_is_left_alone() {
    let east = East::with(2, Options::default());
    let first = east.documents(1, 0);
    let log = east.directory.path().join("rollout.log");
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let mut command = east.rollout("start", &["--documents", first.to_str().expect("UTF-8"), "--waves", "1,100%", "--soak", "1h"]);
    let mut running = Process::start("siteward-hub rollout", &mut command, &log);
    wait::wait_until("the first wave rests", wait::EVENTUALLY, || said().contains("rest of 1 h"));
    let other = east.documents(2, 0).join("gw2.dsse");
    let pushed = east.at_broker(&["config", "push", "--gateway", "st-marys/gw2", other.to_str().expect("UTF-8")]);
    assert!(pushed.status.success(), "{}", text(&pushed));
    assert_eq!(running.ended(Duration::from_secs(60)).code(), Some(3), "{}", said());
    assert!(said().contains("st-marys/gw2: somebody else published revision 2 for it"), "{}", said());
    wait::wait_until("the other's document runs", wait::EVENTUALLY, || east.runs(1) == 2);
    assert_eq!((east.runs(0), east.taken_away("gw2")), (1.into(), false));
}

/// I6: two tools with one name, at a broker that does not say that it is taken: they do not drive each other out for ever, and one of them says why.
#[test]
fn two_tools_with_one_name_do_not_drive_each_other_out_for_ever() {
    let east = East::with(2, Options::default());
    let documents = east.documents(1, 0);
    let documents = documents.to_str().expect("UTF-8");
    let log = east.directory.path().join("rollout.log");
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let mut command = east.rollout("start", &["--documents", documents, "--waves", "1,100%", "--soak", "1h", "--client-id", "desk"]);
    let mut running = Process::start("siteward-hub rollout", &mut command, &log);
    wait::wait_until("the first wave rests", wait::EVENTUALLY, || said().contains("rest of 1 h"));
    let elsewhere = east.directory.path().join("elsewhere");
    let elsewhere = elsewhere.to_str().expect("UTF-8");
    let mut looks = 0;
    wait::wait_until("one of them gives up", wait::EVENTUALLY, || {
        looks += 1;
        let look =
            east.at_broker(&["rollout", "start", "--dry-run", "--documents", documents, "--state", elsewhere, "--client-id", "desk"]);
        assert!(!text(&look).is_empty());
        !running.running()
    });
    assert_eq!(running.ended(wait::SOON).code(), Some(1), "{}", said());
    assert!(said().contains("4 times in a row: another client connected as desk: somebody else is at work with this tool"), "{}", said());
    assert!(looks >= 4, "one other connection is no reason to give up: {}", said());
    let after = east.rollout("status", &["--json"]).output().expect("it runs");
    assert_eq!(states(&report(&after))["gw1"], "confirmed", "nothing of it is lost: {}", text(&after));
}

/// I6: what a rollout writes down is on the disk before anything rests on it: every line of its journal is synced before another is written.
#[test]
fn every_line_of_the_journal_is_synced() {
    if !Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success()) {
        return println!("skipped: strace is not installed or may not trace here");
    }
    let east = East::with(1, Options::default());
    let documents = east.documents(1, 0);
    let start = east.rollout("start", &["--documents", documents.to_str().expect("UTF-8"), "--now"]);
    let trace = east.directory.path().join("trace");
    let mut traced = Command::new("strace");
    traced.args(["-f", "-yy", "-e", "trace=write,writev,pwrite64,fdatasync,fsync", "-o"]).arg(&trace);
    let done = traced.arg(start.get_program()).args(start.get_args()).output().expect("it runs");
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    let trace = std::fs::read_to_string(trace).expect("a trace");
    // One thread writes and syncs it, so its calls stand in order, whatever is between.
    let calls: Vec<&str> = trace.lines().filter(|line| line.contains("/journal.jsonl>")).collect();
    let is = |call: &str, name: &str| call.split_whitespace().nth(1).is_some_and(|begin| begin.starts_with(name));
    let written: Vec<usize> = (0..calls.len()).filter(|&at| is(calls[at], "write(")).collect();
    assert!(written.len() > 2, "at least the plan, what is published, and its answer: {calls:#?}");
    assert!(written.iter().all(|&at| calls.get(at + 1).is_some_and(|call| is(call, "fdatasync("))), "a line without its sync: {calls:#?}");
    println!("desk: {} writes of the journal, each synced before the next", written.len());
}
