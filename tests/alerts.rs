//! Who is alerted of what: syslog lines, hold-down, maintenance windows, and metrics, of a real agent.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::link::Weather;
use harness::message::CANARIES;
use harness::scene::Scene;
use harness::sender::{Wire, send_one};
use harness::syslog::{Kind, Line, Receiver};
use harness::{canary, document, message, mosquitto, wait};
use serde_json::Value;

/// With short hold-downs, so that tests end.
fn open(receiver: &Receiver, adjust: impl FnOnce(&mut harness::site::Configuration)) -> Scene {
    let section = format!(
        "\n[alerts]\nsyslog = \"{}\"\nuplink_after = \"3s\"\npeer_after = \"2s\"\noldest_critical_after = \"4s\"\n",
        receiver.url()
    );
    let mut scene = Scene::new(mosquitto::Options { persistence: true, packet_bytes_max: 0 }, |configuration| {
        configuration.sections.push(section);
        adjust(configuration);
    });
    scene.start();
    connected(&scene);
    scene
}

fn connected(scene: &Scene) {
    wait::wait_until("the uplink is up", wait::EVENTUALLY, || scene.site.status()["uplink"]["state"] == "connected");
}

fn shown(scene: &Scene, code: &str) -> Option<Value> {
    let status = scene.site.status();
    status["conditions"].as_array().and_then(|all| all.iter().find(|c| c["code"] == code).cloned())
}

fn run(scene: &Scene, arguments: &[&str]) -> (bool, String) {
    let output = scene.site.command(arguments);
    (output.status.success(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

fn takes(scene: &Scene, number: u64) -> bool {
    send_one(scene.site.addr(), &message::build(0, number, 700), Duration::from_secs(5)).is_ok_and(|reply| reply.positive())
}

/// I7: nothing of a message anywhere: lines, log, metrics, status.
fn keeps_quiet(scene: &Scene, receiver: &Receiver) {
    let metrics = run(scene, &["status", "--metrics"]).1 + &run(scene, &["status"]).1;
    let told = receiver.raw().join("\n");
    assert!(CANARIES.iter().all(|canary| !metrics.contains(canary) && !told.contains(canary)), "message content in lines or metrics");
    let found = canary::find(&scene.site.directory, &CANARIES);
    assert!(found.is_empty(), "message content in clear: {found:?}");
}

/// The WAN is cut: the condition is there at once, the line after the hold-down, both once; and one more when it is over. No WAN is needed for it.
#[test]
fn an_outage_is_alerted_after_its_hold_down_and_its_end_is_told() {
    let receiver = Receiver::start(Kind::Udp);
    let mut scene = open(&receiver, |_| {});
    assert!(takes(&scene, 1));
    wait::wait_until("it is confirmed", wait::EVENTUALLY, || scene.site.try_queued() == Some(0));
    scene.link.set(Weather::Down);
    scene.site.condition("uplink_down", wait::EVENTUALLY);
    assert!(takes(&scene, 2), "the sender is answered all the same");
    let line = receiver.told("raised uplink_down");
    assert_eq!((line.priority, line.app.as_str(), line.host.as_str()), (28, "siteward", "st-marys-gw1"));
    assert_eq!((line.data["site"].as_str(), line.data["runbook"].as_str()), ("st-marys", "RUNBOOK.md#uplink_down"));
    assert!(line.data.contains_key("since") && line.text.starts_with("raised: "));
    let alerting = shown(&scene, "uplink_down").expect("it is shown");
    assert_eq!(alerting["alerting"], true, "{alerting}");
    assert_eq!(receiver.told("raised oldest_critical").priority, 27);
    scene.link.set(Weather::Fair);
    assert_eq!(receiver.told("over uplink_down").priority, 29);
    receiver.told("over oldest_critical");
    let counts = ["raised uplink_down", "over uplink_down"].map(|what| receiver.count(what));
    assert_eq!(counts, [1, 1]);
    keeps_quiet(&scene, &receiver);
    scene.site.stop();
    println!("alerts: {} lines for an outage: {:?}", receiver.lines().len(), receiver.lines().iter().map(Line::what).collect::<Vec<_>>());
}

/// Lines wait for a receiver that is away, in order, over TCP; a kill in between neither loses an alert nor tells one twice.
#[test]
fn lines_wait_for_a_receiver_that_is_away_and_outlive_a_kill() {
    let mut receiver = Receiver::start(Kind::Tcp);
    let mut scene = open(&receiver, |_| {});
    scene.link.set(Weather::Down);
    receiver.told("raised uplink_down");
    let remembered = || scene.site.status()["alerts"]["waiting"] == 0;
    wait::wait_until("nothing waits", wait::EVENTUALLY, remembered);
    std::thread::sleep(Duration::from_secs(2)); // what was handed over is on disk with the next look
    scene.site.kill();
    scene.site.start();
    scene.site.condition("uplink_down", wait::EVENTUALLY);
    wait::wait_until("it alerts after the kill, too", wait::EVENTUALLY, || {
        shown(&scene, "uplink_down").is_some_and(|c| c["alerting"] == true)
    });
    assert_eq!(receiver.count("raised uplink_down"), 1, "told before the kill, and not again");
    receiver.go_away();
    std::thread::sleep(Duration::from_millis(500));
    scene.link.set(Weather::Fair);
    wait::wait_until("a line waits", wait::EVENTUALLY, || {
        let status = scene.site.status();
        status["alerts"]["waiting"].as_u64() > Some(0) && status["alerts"]["error"].is_string()
    });
    assert!(run(&scene, &["status"]).1.contains("alert lines do not reach"), "a person is told why");
    if harness::long() {
        // What was told before and is not so any more is told as over, also where that line was lost in a kill; after a start that takes a while.
        scene.site.kill();
        scene.site.start();
        connected(&scene);
    }
    receiver.come_back();
    receiver.told("over uplink_down");
    assert_eq!(receiver.count("over uplink_down"), 1);
    scene.site.stop();
    println!("alerts: {} lines over two kills and an absence", receiver.lines().len());
}

/// A window silences the uplink and not the disk; it shows, survives a kill, and ends.
#[test]
fn maintenance_silences_the_uplink_and_never_a_full_spool() {
    let receiver = Receiver::start(Kind::Udp);
    let mut scene = open(&receiver, |configuration| {
        configuration.max_bytes = "16MiB".into();
        configuration.spool_lines.push("message_bytes_max = \"1MiB\"".into());
        configuration.sections.push(document::trust());
    });
    for (arguments, told) in [
        (&["maintenance", "start", "--gateway", "--for", "73h", "--reason", "x"][..], "up to 72 hours"),
        (&["maintenance", "start", "--gateway", "--for", "1h", "--reason", " "], "say why"),
        (&["maintenance", "start", "--feed", "nobody", "--for", "1h", "--reason", "x"], "no feed `nobody`"),
        (&["maintenance", "end", "7"], "no maintenance window 7"),
    ] {
        let (done, said) = run(&scene, arguments);
        assert!(!done && said.contains(told), "{arguments:?}: {said}");
    }
    let (done, said) = run(&scene, &["maintenance", "start", "--gateway", "--for", "4h", "--reason", "line works CHG-7"]);
    assert!(done && said.contains("maintenance 1: alerts about senders, cadence and uplink are silenced for 14400 s"), "{said}");
    scene.link.set(Weather::Down);
    scene.site.condition("uplink_down", wait::EVENTUALLY);
    let mut number = 0;
    wait::wait_until("the spool is full", wait::EVENTUALLY, || {
        number += 1;
        let body = message::build(0, number, 900_000);
        let taken = send_one(scene.site.addr(), &body, Duration::from_secs(5)).is_ok_and(|reply| reply.positive());
        !taken || scene.site.conditions().iter().any(|code| code == "spool_full")
    });
    assert_eq!(receiver.told("raised spool_full").data["severity"], "error");
    scene.site.kill();
    scene.site.spawn();
    scene.site.condition("uplink_down", wait::EVENTUALLY);
    wait::wait_until("the window holds after a kill", wait::EVENTUALLY, || {
        shown(&scene, "uplink_down").is_some_and(|c| c["silenced"]["reason"] == "line works CHG-7" && c["alerting"] == false)
    });
    std::thread::sleep(Duration::from_secs(5)); // longer than any hold-down
    assert_eq!(receiver.count("raised uplink_down") + receiver.count("raised oldest_critical"), 0, "{:?}", receiver.lines());
    let (_, text) = run(&scene, &["status"]);
    assert!(text.contains("silenced until") && text.contains("maintenance 1 of the gateway"), "{text}");
    let (_, listed) = run(&scene, &["maintenance", "list"]);
    assert!(listed.contains("gateway") && listed.contains("line works CHG-7") && listed.contains("uid"), "{listed}");
    let (done, said) = run(&scene, &["maintenance", "end", "1"]);
    assert!(done, "{said}");
    receiver.told("raised uplink_down"); // what is still wrong is alerted now
    scene.link.set(Weather::Fair);
    wait::wait_until("the hub has the audit", wait::EVENTUALLY, || {
        let audited = document::audited(&scene);
        audited.iter().any(|line| line["what"] == "maintenance_cancelled")
    });
    keeps_quiet(&scene, &receiver);
    scene.site.stop();
    println!("alerts: full after {number} messages, alerted in a window; the uplink only when it was over");
}

/// Entered on Friday for Saturday night: it shows as planned, outlives a kill, begins by itself, and silences from then on.
#[test]
fn a_planned_window_begins_by_itself() {
    let receiver = Receiver::start(Kind::Udp);
    let mut scene = open(&receiver, |_| {});
    let start =
        |scene: &Scene, at: &str| run(scene, &["maintenance", "start", "--gateway", "--at", at, "--for", "4h", "--reason", "line works"]);
    for (at, told) in
        [("2020-01-01T00:00", "is past"), ("2099-01-01T00:00", "further ahead than 30 days"), ("saturday", "like 2026-11-28T22:00")]
    {
        let (done, said) = start(&scene, at);
        assert!(!done && said.contains(told), "{at}: {said}");
    }
    let at = siteward::clock::rfc3339(siteward::clock::now().unix_ms + 12_000);
    let (done, said) = start(&scene, &at);
    assert!(done && said.contains(&format!("are silenced from {at} on for 14400 s")), "{said}");
    scene.site.kill();
    scene.site.start();
    connected(&scene);
    let window = scene.site.status()["maintenance"][0].clone();
    assert_eq!((&window["id"], &window["from"]), (&1.into(), &at.as_str().into()), "planned before the kill");
    assert!(run(&scene, &["maintenance", "list"]).1.contains(&at));
    wait::wait_until("it begins", wait::EVENTUALLY, || scene.site.status()["maintenance"][0]["from"].is_null());
    scene.link.set(Weather::Down);
    scene.site.condition("uplink_down", wait::EVENTUALLY);
    wait::wait_until("it silences", wait::SOON, || shown(&scene, "uplink_down").is_some_and(|c| c["silenced"]["window"] == 1));
    std::thread::sleep(Duration::from_secs(5)); // longer than any hold-down
    assert_eq!(receiver.count("raised uplink_down"), 0, "{:?}", receiver.lines());
    assert!(run(&scene, &["maintenance", "end", "1"]).0);
    receiver.told("raised uplink_down");
    scene.site.stop();
}

/// A sender that keeps its connection is missed; a feed's window silences that, and ends by itself.
#[test]
fn a_sender_that_went_away_is_missed_unless_its_feed_is_in_maintenance() {
    let receiver = Receiver::start(Kind::Udp);
    let mut scene = open(&receiver, |_| {});
    let mut wire = Wire::connect(scene.site.addr(), wait::SOON).expect("a connection");
    assert!(wire.exchange(&message::build(0, 1, 700)).expect("an answer").positive());
    std::thread::sleep(Duration::from_secs(4)); // long enough for one that keeps its connection
    drop(wire);
    let line = receiver.told("raised peer_lost");
    assert_eq!((line.priority, line.data["feed"].as_str()), (28, "or-usage"));
    for _ in 0..4 {
        drop(Wire::connect(scene.site.addr(), wait::SOON).expect("a connection")); // a test of the port
        std::thread::sleep(Duration::from_millis(700));
    }
    assert!(shown(&scene, "peer_lost").is_some() && receiver.count("over peer_lost") == 0, "nobody came who brings something or stays");
    let wire = Wire::connect(scene.site.addr(), wait::SOON).expect("a connection");
    receiver.told("over peer_lost");
    std::thread::sleep(Duration::from_secs(4));
    assert!(run(&scene, &["maintenance", "start", "--feed", "or-usage", "--for", "20s", "--reason", "vendor update"]).0);
    drop(wire);
    scene.site.condition("peer_lost", wait::EVENTUALLY);
    wait::wait_until("it is silenced", wait::SOON, || shown(&scene, "peer_lost").is_some_and(|c| c["silenced"]["window"] == 1));
    assert_eq!(receiver.count("raised peer_lost"), 1, "not in the window");
    wait::wait_until("the window is over and it is told", wait::EVENTUALLY, || receiver.count("raised peer_lost") == 2);
    assert_eq!(scene.site.status()["maintenance"], serde_json::json!([]));
    scene.site.stop();
}

fn promtool_agrees(page: &str) {
    let Ok(mut child) = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
        println!("skipped: promtool is not installed (apt-get install prometheus), the metrics are not checked by it");
        return;
    };
    child.stdin.take().expect("piped").write_all(page.as_bytes()).expect("promtool reads");
    let output = child.wait_with_output().expect("promtool ends");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.is_empty(), "promtool says: {said}");
}

/// A strict reader of OpenMetrics; only where it is there, or may be fetched (long versions).
fn parser_agrees(page: &str, directory: &std::path::Path) {
    let program = "import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as p; print(len(list(p(sys.stdin.read()))))";
    let venv = directory.join("venv");
    let python = venv.join("bin/python3");
    let made = harness::long()
        && Command::new("python3").args(["-m", "venv"]).arg(&venv).output().is_ok_and(|o| o.status.success())
        && Command::new(&python).args(["-m", "pip", "-q", "install", "prometheus_client"]).output().is_ok_and(|o| o.status.success());
    if !made {
        return println!("skipped: the strict OpenMetrics parser is fetched in the long versions only");
    }
    let mut child = Command::new(&python).args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python runs");
    child.stdin.take().expect("piped").write_all(page.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "the parser refuses the page:\n{page}");
    println!("the strict parser reads {} families", String::from_utf8_lossy(&output.stdout).trim());
}

fn metric(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// What metrics say is what the status says, in both dialects, as promtool and a strict parser want them.
#[test]
fn metrics_say_what_the_status_says() {
    let receiver = Receiver::start(Kind::Udp);
    let mut scene = open(&receiver, |_| {});
    for number in 1..=20 {
        assert!(takes(&scene, number));
    }
    wait::wait_until("all is confirmed", wait::EVENTUALLY, || scene.site.try_queued() == Some(0));
    let (_, plain) = run(&scene, &["status", "--metrics"]);
    let (_, open_metrics) = run(&scene, &["status", "--metrics=openmetrics"]);
    promtool_agrees(&plain);
    assert!(open_metrics.ends_with("# EOF\n") && !plain.contains("# EOF"));
    let of = "{feed=\"or-usage\",lane=\"critical\"}";
    for (name, value) in [
        (format!("siteward_feed_captured_total{of}"), 20.0),
        (format!("siteward_feed_released_total{of}"), 20.0),
        (format!("siteward_feed_last_seq{of}"), 20.0),
        ("siteward_uplink_up".to_owned(), 1.0),
        ("siteward_uplink_connections_total".to_owned(), 1.0),
        ("siteward_starts_total".to_owned(), 1.0),
        ("siteward_condition{code=\"uplink_down\",severity=\"warning\"}".to_owned(), 0.0),
        ("siteward_condition{code=\"spool_key_beside_spool\",severity=\"warning\"}".to_owned(), 1.0),
    ] {
        assert_eq!(metric(&plain, &name), Some(value), "{name} in\n{plain}");
    }
    for name in [
        "siteward_uplink_acknowledged_total",
        "siteward_uplink_receipts_total",
        "siteward_spool_sync_seconds_count",
        "siteward_process_resident_bytes",
        "siteward_uplink_certificate_not_after_timestamp_seconds",
    ] {
        assert!(metric(&plain, name) > Some(0.0), "{name} in\n{plain}");
    }
    parser_agrees(&open_metrics, scene.directory.path());
    scene.site.kill();
    scene.site.start();
    wait::wait_until("the second start counts", wait::EVENTUALLY, || {
        metric(&run(&scene, &["status", "--metrics"]).1, "siteward_starts_total") == Some(2.0)
    });
    keeps_quiet(&scene, &receiver);
    println!("metrics: {} lines, {} bytes", plain.lines().count(), plain.len());
}
