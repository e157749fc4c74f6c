//! The certificate by which the hub knows a gateway, and the clock by which certificates end: rotation under live traffic with an authority that
//! knows nothing of siteward (openssl), useless certificates, kills in every step, wrong clocks, and what a right one refuses.
//!
//! Clocks need libfaketime (Debian package `libfaketime`); where that is not installed, those tests say that they are skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::link::Weather;
use harness::message;
use harness::mosquitto;
use harness::observer;
use harness::pki::Pki;
use harness::scene::Scene;
use harness::sender::{Crew, Plan};
use harness::wait;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{Client, Event, Incoming, MqttOptions};
use serde_json::Value;
use siteward::hub::config::{lint, sign};
use siteward::hub::keys::{self, Passphrase};

const TOPIC: &str = "siteward/v1/st-marys/st-marys-gw1";

fn keys() -> PathBuf {
    harness::repository().join("tests/fixtures/documents/keys")
}

fn scene(adjust: impl FnOnce(&mut harness::site::Configuration)) -> Scene {
    Scene::new(mosquitto::Options { persistence: true, packet_bytes_max: 0 }, |configuration| {
        configuration.sections.push(format!("[trust]\nkeys = [\"{}\"]\n", keys().join("openssl.pub").display()));
        adjust(configuration);
    })
}

fn connected(scene: &Scene) -> bool {
    scene.site.try_status().is_some_and(|status| status["uplink"]["state"] == "connected")
}

fn connects(scene: &Scene) {
    let there = wait::try_until(wait::EVENTUALLY, || connected(scene));
    assert!(there, "the uplink does not come up; the log ends with:\n{}", scene.site.log_tail());
}

fn publish(scene: &Scene, topic: &str, payload: &str) {
    let broker = scene.broker.plain();
    let options = MqttOptions::new(format!("desk-{}", harness::net::free_port()), broker.ip().to_string(), broker.port());
    let (client, mut connection) = Client::new(options, 4);
    client.publish(format!("{TOPIC}/{topic}"), QoS::AtLeastOnce, true, payload.to_owned()).expect("room for one");
    let acknowledged = connection.iter().any(|event| matches!(event.expect("the broker takes it"), Event::Incoming(Incoming::PubAck(_))));
    assert!(acknowledged);
}

/// A document that keeps the feed and asks for a renewal.
fn ask(scene: &Scene, revision: u64, request: &str) {
    let text = format!(
        "[document]\nschema_version = 1\nrevision = {revision}\ngateway = \"st-marys-gw1\"\nauthor = \"kim\"\nreason = \"test\"\n\
         [rollout]\ntrial = \"10s\"\n[uplink.renew]\nrequest = {request:?}\ntrial = \"10s\"\n\
         [[feed]]\nid = \"or-usage\"\nlane = \"critical\"\nstage = \"live\"\nforward = \"raw\"\nphi = \"allowed\"\n\
         [feed.mllp]\nlisten = \"{}\"\n",
        scene.site.addr()
    );
    let file = scene.directory.path().join(format!("document-{revision}.toml"));
    fs::write(&file, text).expect("the document is written");
    let linted = lint(&file, None).unwrap_or_else(|faults| panic!("{faults}"));
    let (signer, _) = keys::open(&keys().join("openssl.key"), &Passphrase::usual()).expect("the key of the fixtures");
    publish(scene, "config/desired", &sign(&linted, &[signer]).expect("it is signed"));
}

/// The retained state of the renewal, once it is as wanted.
fn told(scene: &Scene, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let there = wait::try_until(Duration::from_secs(90), || {
        let payload = observer::retained(scene.broker.plain(), &format!("{TOPIC}/certificate/request")).unwrap_or_default();
        last = serde_json::from_slice(&payload).unwrap_or_default();
        wanted(&last)
    });
    assert!(there, "{what}: the gateway tells {last}; its log ends with:\n{}", scene.site.log_tail());
    last
}

fn csr(state: &Value) -> &str {
    state["csr"].as_str().expect("a request waits")
}

fn certs(scene: &Scene, arguments: &[&str]) -> String {
    let output = scene.site.command(&[&["certs"], arguments].concat());
    assert!(output.status.success(), "certs {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// `siteward-hub certs`, of central IT.
fn desk(scene: &Scene, arguments: &[&str]) {
    let broker = format!("mqtt://{}", scene.broker.plain());
    let whom = ["--broker", &broker, "--site", "st-marys", "--gateway", "st-marys-gw1"];
    let mut command = Command::new(harness::program("siteward-hub"));
    let output = command.arg("certs").arg(arguments[0]).args(whom).args(&arguments[1..]).output().expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn shown(scene: &Scene) -> Value {
    serde_json::from_str(&certs(scene, &["show", "--json"])).expect("JSON")
}

fn renewed(scene: &Scene) {
    let there = wait::try_until(wait::EVENTUALLY, || shown(scene)["last"]["taken"] == true);
    assert!(there, "the new certificate is not in use: {}; the log ends with:\n{}", shown(scene), scene.site.log_tail());
}

/// The bootstrap's certificate is worth nothing from here on: who connects has another.
fn spoil_the_bootstrap(scene: &Scene) {
    let foreign = Pki::new(&scene.directory.path().join("elsewhere"), "another CA").client("st-marys-gw1");
    let harness::site::Uplink::Tls { client, .. } = &scene.site.configuration.uplink else { panic!("the scene has TLS") };
    fs::copy(foreign.cert, &client.cert).expect("copied");
    fs::copy(foreign.key, &client.key).expect("copied");
}

/// I2, I3, I6: a certificate of an authority that the hub does not know, then the right one, under traffic: nothing lost, the old one kept, the
/// reason told; then the new one is in use, also after a restart.
#[test]
fn certificate_rotation_under_load() {
    let mut scene = scene(|_| {});
    scene.start();
    connects(&scene);
    let rest = if harness::long() { Duration::ZERO } else { Duration::from_millis(10) };
    let crew = Crew::start(&Plan { pause: rest, ..Plan::new(scene.site.addr(), 8, 10_000_000) });
    ask(&scene, 1, "2026-11");
    let state = told(&scene, "asked", |state| state["state"] == "requested");
    assert_eq!(state["request"], "2026-11");

    let foreign = Pki::new(&scene.directory.path().join("foreign"), "somebody else");
    publish(&scene, "certificate/issued", &foreign.sign(csr(&state)));
    let refused = told(&scene, "refused", |state| state["last"]["taken"] == false);
    assert_eq!(refused["state"], "requested", "the key waits for the right one");
    let why = refused["last"]["why"].as_str().unwrap_or_default();
    assert!(why.contains("the one from before stays in use") && why.contains("does not accept our certificate"), "{why}");
    scene.site.condition("certificate_refused", wait::SOON);
    connects(&scene);

    // The right one, as central IT does it.
    let (request, certificate) = (scene.directory.path().join("gateway.csr"), scene.directory.path().join("gateway.pem"));
    desk(&scene, &["fetch", "--out", &request.display().to_string()]);
    fs::write(&certificate, scene.pki.sign(&fs::read_to_string(&request).expect("the request"))).expect("the certificate is written");
    desk(&scene, &["issue", &certificate.display().to_string()]);
    let done = told(&scene, "promoted", |state| state["last"]["taken"] == true);
    assert_eq!(done["state"], "idle");
    wait::wait_until("the refusal is over", wait::SOON, || !scene.site.conditions().contains(&"certificate_refused".to_owned()));
    spoil_the_bootstrap(&scene);
    scene.site.kill();
    scene.site.start();
    connects(&scene);
    let before = crew.acknowledged();
    wait::wait_until("messages go on", wait::EVENTUALLY, || crew.acknowledged() > before + 100);
    let said = crew.stop();
    let acknowledged = said.iter().map(|told| told.acknowledged.len() as u64).sum();
    scene.hub.wait_for_events(acknowledged);
    wait::wait_until("everything is settled", wait::EVENTUALLY, || scene.site.try_queued() == Some(0));
    let audit = scene.hub.audit();
    assert_eq!((audit.complaints(), audit.broken_promises(&said, |_, _| 700)), (Vec::new(), Vec::new()));
    assert!(audit.of_kind("certificate_request").len() >= 3, "the hub's output has what the gateway said of it");
    // The same document again asks for nothing.
    ask(&scene, 2, "2026-11");
    wait::wait_until("the document runs", Duration::from_secs(60), || scene.site.status()["config"]["revision"] == 2);
    assert_eq!(shown(&scene)["csr"], Value::Null);
    println!("certificates: {acknowledged} messages acknowledged during a refused and a taken rotation and a kill, all at the hub");
}

/// I2, I3: killed when the key was made, when the certificate came, at moments of its trial, and after; through files, as an enterprise
/// authority has it.
#[test]
fn killed_in_every_step_of_a_renewal_comes_back_with_a_certificate_that_works() {
    let rounds: u64 = if harness::long() { 30 } else { 5 };
    let mut scene = scene(|_| {});
    scene.start();
    connects(&scene);
    let mut number = 0;
    let mut send = |scene: &Scene| {
        let mut wire = scene.site.wire();
        for _ in 0..3 {
            number += 1;
            assert!(wire.exchange(&message::build(0, number, 700)).expect("an answer").positive());
        }
        number
    };
    let (request, certificate) = (scene.directory.path().join("request.csr"), scene.directory.path().join("gateway.pem"));
    let mut before = Value::Null;
    for round in 0..rounds {
        certs(&scene, &["renew"]);
        scene.site.kill();
        scene.site.start();
        certs(&scene, &["csr", "--out", &request.display().to_string()]);
        let signed = scene.pki.sign(&fs::read_to_string(&request).expect("the request was written"));
        fs::write(&certificate, signed).expect("the certificate is written");
        certs(&scene, &["install", &certificate.display().to_string()]);
        send(&scene);
        std::thread::sleep(Duration::from_millis((round * 23) % 120));
        scene.site.kill();
        scene.site.start();
        connects(&scene);
        // Promoted before the kill, or on trial again and promoted now.
        let there = wait::try_until(wait::EVENTUALLY, || {
            let shown = shown(&scene);
            shown["state"] == "idle" && !shown["renewed"].is_null()
        });
        assert!(there, "round {round}: {}; {}", shown(&scene), scene.site.log_tail());
        scene.site.kill();
        scene.site.start();
        let shown = shown(&scene);
        assert_eq!((&shown["state"], &shown["csr"]), (&Value::from("idle"), &Value::Null));
        assert_ne!(shown["renewed"], Value::Null);
        before = shown;
    }
    assert!(before["ends"].as_str().is_some_and(|ends| ends.len() == 24), "{before}");
    spoil_the_bootstrap(&scene);
    scene.site.kill();
    scene.site.start();
    connects(&scene);
    let sent = send(&scene);
    scene.hub.wait_for_events(sent);
    assert_eq!(scene.hub.audit().complaints(), Vec::<String>::new());
    println!("certificates: {rounds} renewals, each killed three times, {sent} messages all at the hub");
}

/// An outage says nothing against a new certificate, and a wrong file changes nothing.
#[test]
fn an_expired_certificate_is_offered_told_and_replaced_from_a_file_without_the_hub() {
    // Only a clock that somebody vouches for refuses what has ended, and no hub does before it was reached.
    let mut marker = PathBuf::new();
    let mut scene = scene(|configuration| {
        marker = configuration.spool.with_file_name("synchronised");
        configuration.gateway_lines.push(format!("clock_synchronised_file = \"{}\"", marker.display()));
    });
    fs::write(&marker, "").expect("the clock is kept right");
    let expired = scene.pki.client_between("st-marys-gw1", (-90, -1));
    scene.start();
    assert!(scene.site.wire().exchange(&message::build(0, 1, 700)).expect("an answer").positive());
    scene.site.condition("certificate_ending", wait::EVENTUALLY);
    scene.site.condition("uplink_refused", wait::EVENTUALLY);
    certs(&scene, &["renew", "--trial", "10s"]);
    scene.site.condition("certificate_pending", wait::SOON);
    let csr = certs(&scene, &["csr"]);
    let other = scene.site.command(&["certs", "install", &expired.cert.display().to_string()]);
    assert!(String::from_utf8_lossy(&other.stderr).contains("has ended already"), "{}", String::from_utf8_lossy(&other.stderr));
    let key = scene.site.command(&["certs", "install", &expired.key.display().to_string()]);
    assert!(String::from_utf8_lossy(&key.stderr).contains("holds a private key"));
    scene.link.set(Weather::Down);
    let certificate = scene.directory.path().join("gateway.pem");
    fs::write(&certificate, scene.pki.sign(&csr)).expect("the certificate is written");
    certs(&scene, &["install", &certificate.display().to_string()]);
    std::thread::sleep(Duration::from_secs(15)); // longer than the trial
    assert_eq!(shown(&scene)["state"], "trial", "no time counts while nobody can be reached");
    scene.link.set(Weather::Fair);
    renewed(&scene);
    connects(&scene);
    scene.hub.wait_for_events(1);
    wait::wait_until("its end worries nobody now", wait::EVENTUALLY, || {
        !scene.site.conditions().iter().any(|code| code.starts_with("certificate_") || code == "uplink_refused")
    });
}

/// Whoever has the broker's password can send certificates; nothing breaks by them.
#[test]
fn certificates_that_nobody_asked_for_change_nothing() {
    let mut scene = scene(|_| {});
    scene.start();
    connects(&scene);
    let other = scene.pki.client("somebody");
    for payload in [fs::read_to_string(&other.cert).expect("a certificate"), "nonsense".into(), "x".repeat(200_000)] {
        publish(&scene, "certificate/issued", &payload);
    }
    certs(&scene, &["renew"]);
    publish(&scene, "certificate/issued", &fs::read_to_string(&other.cert).expect("a certificate"));
    let state = told(&scene, "refused", |state| state["last"]["taken"] == false);
    assert!(state["last"]["why"].as_str().is_some_and(|why| why.contains("do not belong together")), "{state}");
    certs(&scene, &["cancel"]);
    told(&scene, "cancelled", |state| state["state"] == "idle" && state["last"].is_null());
    assert!(scene.site.wire().exchange(&message::build(0, 1, 700)).expect("an answer").positive());
    scene.hub.wait_for_events(1);
    connects(&scene);
}

/// Where Debian puts the library.
fn library() -> Option<PathBuf> {
    let architecture = format!("{}-linux-gnu", std::env::consts::ARCH);
    let found = PathBuf::from(format!("/usr/lib/{architecture}/faketime/libfaketimeMT.so.1"));
    if !found.exists() {
        println!("certificates: skipped: {} is not here; install the package libfaketime", found.display());
        return None;
    }
    Some(found)
}

/// Starts the agent with its wall clock at a time in UTC, or moved by so much; everything else has the right time.
fn start_at(scene: &mut Scene, library: &Path, time: &str) {
    let mut command = Command::new(harness::program("siteward"));
    command.arg("run").arg("--config").arg(scene.site.config_file());
    command.env("LD_PRELOAD", library).env("TZ", "UTC").env("FAKETIME", time);
    command.env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
    scene.site.spawn_with(&mut command);
    scene.site.listening();
}

fn suspicion(scene: &Scene) -> Option<String> {
    let status = scene.site.status();
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().find(|found| found["code"] == "clock_suspect").and_then(|found| found["text"].as_str().map(str::to_owned))
}

/// The newest event in the hub's output, as it stands there.
fn newest_event(scene: &Scene) -> String {
    let output = fs::read_to_string(scene.hub.out()).expect("the hub's output");
    output.lines().rfind(|line| line.contains("\"kind\":\"event\"")).expect("an event").to_owned()
}

/// I10: a clock in 1970 and ten years ahead: connected, said, nothing lost; once the hub has confirmed a time, that is what counts.
#[test]
fn a_wrong_clock_connects_and_is_told() {
    let Some(library) = library() else { return };
    let mut scene = scene(|_| {});
    scene.pki.server_between("server", (-1, 300));
    scene.broker.restart();
    scene.hub.start();
    let mut number = 0;
    let mut send = |scene: &Scene| {
        number += 1;
        assert!(scene.site.wire().exchange(&message::build(0, number, 700)).expect("an answer").positive());
        number
    };
    for time in ["@1970-01-01 00:10:00", "+3652d"] {
        start_at(&mut scene, &library, time);
        connects(&scene);
        let sent = send(&scene);
        scene.hub.wait_for_events(sent);
        scene.site.condition("clock_suspect", wait::EVENTUALLY);
        let sent = send(&scene);
        scene.hub.wait_for_events(sent);
        assert!(newest_event(&scene).contains("clocksuspect"), "{time}: the record vouches for this clock");
        scene.site.kill();
    }
    // The right time, which nobody vouches for but the hub.
    scene.site.start();
    connects(&scene);
    let kept = scene.site.configuration.spool.join("hub-time");
    let confirmed = wait::try_until(wait::EVENTUALLY, || {
        send(&scene);
        std::thread::sleep(Duration::from_secs(1));
        kept.exists()
    });
    assert!(confirmed, "no time was confirmed; {}", scene.site.log_tail());
    assert_eq!(suspicion(&scene), None);
    scene.site.kill();
    // Ten years ahead again: the hub's word of before makes the certificate good, and its next ones say what is wrong.
    start_at(&mut scene, &library, "+3652d");
    connects(&scene);
    let told = wait::try_until(wait::EVENTUALLY, || {
        send(&scene);
        std::thread::sleep(Duration::from_secs(1));
        suspicion(&scene).is_some_and(|text| text.contains("the hub 20"))
    });
    assert!(told, "{:?}; {}", suspicion(&scene), scene.site.log_tail());
    let sent = send(&scene);
    scene.hub.wait_for_events(sent);
    assert_eq!(scene.hub.audit().complaints(), Vec::<String>::new());
}

/// I10 the other way round: a clock that is kept right refuses a hub whose certificate has ended, and one that nobody vouches for says so.
#[test]
fn a_clock_that_is_kept_right_refuses_an_expired_hub() {
    let mut marker = PathBuf::new();
    let mut scene = scene(|configuration| {
        marker = configuration.spool.with_file_name("synchronised");
        configuration.gateway_lines.push(format!("clock_synchronised_file = \"{}\"", marker.display()));
    });
    fs::write(&marker, "").expect("the clock is kept right");
    scene.start();
    connects(&scene);
    scene.pki.server_between("server", (-90, -1));
    scene.broker.restart();
    assert!(scene.site.wire().exchange(&message::build(0, 1, 700)).expect("an answer").positive());
    let refused = || {
        let status = scene.site.status();
        let error = status["uplink"]["last_error"].as_str().unwrap_or_default().to_owned();
        status["uplink"]["state"] != "connected" && error.contains("it has expired")
    };
    assert!(wait::try_until(wait::EVENTUALLY, refused), "{}; {}", scene.site.status()["uplink"], scene.site.log_tail());
    assert_eq!(suspicion(&scene), None);
    scene.site.kill();
    fs::remove_file(&marker).expect("nobody vouches for it any more");
    scene.site.start();
    connects(&scene);
    let doubt = wait::try_until(wait::EVENTUALLY, || suspicion(&scene).is_some_and(|text| text.contains("the hub's certificate")));
    assert!(doubt, "{:?}", suspicion(&scene));
}
