//! Signed commands of central IT over a real broker to the running agent: every verb, every refusal, kills in between, and somebody who has the
//! broker's password and floods the topic.
//!
//! `SITEWARD_LONG=1` kills more often and floods for longer.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use harness::message;
use harness::mosquitto;
use harness::net;
use harness::observer;
use harness::scene::Scene;
use harness::sender::Wire;
use harness::wait;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{Client, Event, Incoming, MqttOptions};
use serde_json::{Value, json};
use siteward::hub::command::{Standing, Wish, sign};
use siteward::hub::keys::{self, Passphrase, Signer};
use siteward::record::Name;

const TOPIC: &str = "siteward/v1/st-marys/st-marys-gw1";
const ALL: &str = r#"["pause_feed","resume_feed","accept_resend","release_quarantine","drop_quarantine","checkpoint","diagnose","log_level","maintenance_start","maintenance_end"]"#;

fn keys() -> PathBuf {
    harness::repository().join("tests/fixtures/documents/keys")
}

/// A site that takes commands of the key of the fixtures, its broker, and a hub that writes down what it hears.
struct Desk {
    scene: Scene,
    number: u64,
}

impl Desk {
    fn open(packet_bytes_max: u32, commands: &str) -> Self {
        let mut scene = Scene::new(mosquitto::Options { persistence: true, packet_bytes_max }, |configuration| {
            let key = keys().join("openssl.pub");
            configuration.sections.push(format!("[trust]\nkeys = [\"{}\"]\n{commands}\n", key.display()));
        });
        scene.start();
        let desk = Self { scene, number: 0 };
        desk.connected();
        desk
    }

    fn connected(&self) {
        wait::wait_until("the uplink is up", wait::EVENTUALLY, || {
            self.scene.site.try_status().is_some_and(|status| status["uplink"]["state"] == "connected")
        });
    }

    fn broker(&self) -> SocketAddr {
        self.scene.broker.plain()
    }

    fn try_standing(&self) -> Option<Standing> {
        let payload = observer::retained(self.broker(), &format!("{TOPIC}/config/reported"))?;
        let reported: Value = serde_json::from_slice(&payload).ok()?;
        serde_json::from_value(reported["commands"].clone()).ok()
    }

    /// What the gateway reports; another one than `old`, where that is given.
    fn standing(&self, old: Option<&Standing>) -> Standing {
        wait::wait_for("another challenge is reported", wait::EVENTUALLY, || self.try_standing().filter(|new| Some(new) != old))
    }

    /// The tool of the desk, from the reported state to the result.
    fn tool(&self, verb: &[&str]) -> Value {
        let mut command = Command::new(harness::program("siteward-hub"));
        command.args(["command", "run", "--broker", &format!("mqtt://{}", self.broker()), "--site", "st-marys"]);
        command.args(["--gateway", "st-marys-gw1", "--author", "kim", "--reason", "CHG-7: the interface is moved", "--sign-with"]);
        let output = command.arg(keys().join("openssl.key")).args(verb).output().expect("the tool runs");
        let told = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{verb:?}: {told}\n{}", self.scene.site.log_tail()))
    }

    fn done(&self, verb: &[&str]) -> Value {
        let mut answer = self.tool(verb);
        if answer["code"] == "old_challenge" {
            answer = self.tool(verb); // it was restarted, and the new report had not come yet
        }
        assert_eq!(answer["outcome"], "done", "{verb:?}: {answer}");
        answer
    }

    fn listens(&self) -> bool {
        Wire::connect(self.scene.site.addr(), Duration::from_millis(500)).is_ok()
    }

    fn send(&mut self, count: u64, size: usize) {
        let mut wire = self.scene.site.wire();
        for _ in 0..count {
            self.number += 1;
            assert!(wire.exchange(&message::build(0, self.number, size)).expect("an answer").positive());
        }
    }

    fn has(&self, code: &str) -> bool {
        self.scene.site.conditions().iter().any(|holding| holding == code)
    }

    /// What the hub wrote down of this kind (`audit`, `command_result`).
    fn heard(&self, kind: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.scene.hub.out()).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["kind"] == kind).map(|line| line["data"].clone()).collect()
    }

    fn hears(&self, kind: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let found = || self.heard(kind).into_iter().find(&fits);
        let there = wait::try_until(wait::EVENTUALLY, || found().is_some());
        assert!(there, "{what}: the hub heard {:?}", self.heard(kind));
        found().unwrap_or_default()
    }

    /// How often a signed command was begun, by the log (it is appended to over restarts).
    fn begun(&self, counter: u64) -> usize {
        let log = self.scene.site.log();
        log.lines().filter(|line| line.contains("a signed command is carried out") && line.contains(&format!("counter={counter} "))).count()
    }
}

fn signer() -> Signer {
    keys::open(&keys().join("openssl.key"), &Passphrase::usual()).expect("the key of the fixtures").0
}

fn stranger(directory: &std::path::Path) -> Signer {
    let words = directory.join("words");
    fs::write(&words, "correct horse battery staple").expect("written");
    keys::generate(directory, "stranger", &Passphrase::File(words.clone())).expect("a pair");
    keys::open(&directory.join("stranger.key"), &Passphrase::File(words)).expect("its own words").0
}

fn envelope(gateway: &str, standing: &Standing, (verb, args): (&str, &[&str]), signer: Signer) -> String {
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    let wish = Wish::read(verb, &args, "kim", "CHG-7").expect("a command");
    sign(&wish, &Name::new(gateway).expect("a name"), standing, &[signer]).expect("it is signed")
}

/// Publishes all of these over one connection.
fn publish(broker: SocketAddr, payloads: &[String], retain: bool) {
    let options = MqttOptions::new(format!("desk-{}", net::free_port()), broker.ip().to_string(), broker.port());
    let (client, mut connection) = Client::new(options, payloads.len() + 1);
    for payload in payloads {
        client.publish(format!("{TOPIC}/command"), QoS::AtLeastOnce, retain, payload.clone()).expect("room for all");
    }
    let mut left = payloads.len();
    for event in connection.iter() {
        match event {
            Ok(Event::Incoming(Incoming::PubAck(_))) => left -= 1,
            Ok(_) => {}
            Err(error) => panic!("the broker does not take it: {error}"),
        }
        if left == 0 {
            return;
        }
    }
}

/// Each verb, from the desk's tool to its effect, its result and its audit; what is paused stays so over a kill.
#[test]
fn every_command_has_its_effect_its_result_and_its_audit() {
    let mut desk = Desk::open(20_000, &format!("commands = {ALL}"));
    desk.send(2, 700);
    desk.done(&["pause_feed", "feed=or-usage"]);
    assert!(!desk.listens() && desk.has("feed_paused"));
    desk.scene.site.kill();
    desk.scene.site.spawn();
    desk.connected();
    assert!(!desk.listens() && desk.has("feed_paused"), "a paused feed stays paused over a kill");
    assert!(desk.done(&["resume_feed", "feed=or-usage"])["text"].as_str().unwrap_or_default().contains("is resumed"));
    assert!(!desk.has("feed_paused"));
    desk.send(2, 700);
    desk.done(&["accept_resend", "feed=or-usage", "for_s=60"]);
    assert!(desk.has("accept_resend_open"));
    desk.done(&["checkpoint"]);
    let window = desk.done(&["maintenance_start", "for_s=259200"]);
    assert!(window["text"].as_str().unwrap_or_default().starts_with("maintenance 1: "), "{window}");
    assert_eq!(desk.scene.site.status()["maintenance"][0]["who"], "kim");
    desk.done(&["maintenance_end", "id=1"]);
    desk.done(&["log_level", "level=debug", "for_s=1"]);
    wait::wait_until("the log level goes back by itself", wait::EVENTUALLY, || {
        desk.scene.site.log().contains("the log level is as it was")
    });

    // Three messages that the broker does not take: one is dropped, two are released when it does.
    desk.send(3, 40_000);
    wait::wait_until("three are in quarantine", wait::EVENTUALLY, || {
        let output = desk.scene.site.command(&["quarantine", "list", "--json"]);
        serde_json::from_slice::<Value>(&output.stdout).is_ok_and(|list| list["total"] == 3)
    });
    let refused = desk.tool(&["release_quarantine", "feed=or-usage", "first=5", "last=6"]);
    assert_eq!(refused["outcome"], "failed");
    assert!(refused["text"].as_str().unwrap_or_default().contains("larger than the broker takes"), "{refused}");
    assert!(desk.done(&["drop_quarantine", "feed=or-usage", "first=7", "last=7"])["text"].as_str().unwrap_or_default().starts_with("1 "));
    desk.scene.broker.stop();
    let conf = desk.scene.directory.path().join("broker/mosquitto.conf");
    let text = fs::read_to_string(&conf).expect("its configuration");
    fs::write(&conf, text.replace("max_packet_size 20000\n", "")).expect("written");
    desk.scene.broker.restart();
    desk.connected();
    let released = desk.done(&["release_quarantine", "feed=or-usage", "first=1", "last=100"]);
    assert!(released["text"].as_str().unwrap_or_default().starts_with("2 records were released"), "{released}");
    desk.scene.hub.wait_for_events(6);
    wait::wait_until("nothing is in quarantine any more", wait::EVENTUALLY, || !desk.has("quarantine_not_empty"));
    let nothing = desk.tool(&["release_quarantine", "feed=or-usage", "first=1", "last=100"]);
    assert_eq!(nothing["outcome"], "failed");

    let data = desk.done(&["diagnose"])["data"].clone();
    assert_eq!(data["status"]["gateway"], "st-marys-gw1");
    assert_eq!(data["quarantine"]["total"], 0);
    for verb in
        ["pause_feed", "resume_feed", "accept_resend", "checkpoint", "log_level", "drop_quarantine", "release_quarantine", "diagnose"]
    {
        let ended = format!("{verb}_done");
        for what in [verb, &ended] {
            let line = desk.hears("audit", what, |line| line["what"] == what);
            assert_eq!(line["who"], "kim");
        }
        desk.hears("command_result", verb, |line| line["verb"] == verb && line["outcome"] == "done");
    }
    // The same on site.
    let site = &desk.scene.site;
    let by_hand = |arguments: &[&str]| String::from_utf8_lossy(&site.command(arguments).stdout).into_owned();
    assert!(by_hand(&["feeds", "pause", "--feed", "or-usage", "--why", "cable"]).contains("is paused"));
    assert!(!desk.listens());
    assert!(by_hand(&["feeds", "resume", "--feed", "or-usage", "--why", "cable"]).contains("is resumed"));
    desk.hears("audit", "on site", |line| {
        line["what"] == "pause_feed_done" && line["who"].as_str().is_some_and(|who| who.ends_with("on site"))
    });
    desk.send(1, 700);
    desk.scene.hub.wait_for_events(7);
    let complaints = desk.scene.hub.audit().complaints();
    let (exceptions, others): (Vec<_>, Vec<_>) = complaints.into_iter().partition(|line| line.starts_with("exception"));
    assert!(exceptions.len() == 3 && others.is_empty(), "{exceptions:?} {others:?}");
}

/// I6: whatever is not signed by a key of this gateway, for this gateway and for now is not carried out, and is answered and audited.
#[test]
fn replays_and_forgeries_are_refused_and_told() {
    let desk = Desk::open(0, "");
    let standing = desk.standing(None);
    assert_eq!(standing.highest_counter, 0);
    assert!(!standing.allowed.iter().any(|verb| verb.as_str().contains("quarantine")), "{standing:?}");
    let pause = ("pause_feed", &["feed=or-usage"][..]);
    let stranger = stranger(desk.scene.directory.path());
    let other_challenge = Standing { challenge: "0".repeat(32), ..standing.clone() };
    let drop_one = ("drop_quarantine", &["feed=or-usage", "first=1", "last=1"][..]);
    let refusals = [
        ("not_verified", envelope("st-marys-gw1", &standing, pause, stranger)),
        ("not_verified", "{\"pause_feed\":\"or-usage\"}".to_owned()),
        ("other_gateway", envelope("st-marys-gw2", &standing, pause, signer())),
        ("old_challenge", envelope("st-marys-gw1", &other_challenge, pause, signer())),
        ("not_allowed", envelope("st-marys-gw1", &standing, drop_one, signer())),
    ];
    for (code, payload) in &refusals {
        publish(desk.broker(), std::slice::from_ref(payload), false);
        desk.hears("command_result", code, |line| line["code"] == *code && line["outcome"] == "refused");
        desk.hears("audit", code, |line| line["what"] == "command_refused" && line["subject"] == *code);
    }
    assert!(desk.has("command_refused"));
    let good = envelope("st-marys-gw1", &standing, pause, signer());
    publish(desk.broker(), std::slice::from_ref(&good), true);
    desk.hears("command_result", "retained", |line| line["code"] == "retained");
    publish(desk.broker(), &[String::new()], true);
    assert!(desk.listens() && !desk.has("feed_paused"), "nothing of this had an effect");
    assert_eq!(desk.standing(None), standing, "nor used the challenge up");

    publish(desk.broker(), std::slice::from_ref(&good), false);
    desk.hears("command_result", "done", |line| line["outcome"] == "done" && line["counter"] == 1);
    assert!(!desk.listens());
    let next = desk.standing(Some(&standing));
    assert_eq!(next.highest_counter, 1);
    let resume = envelope("st-marys-gw1", &next, ("resume_feed", &["feed=or-usage"][..]), signer());
    publish(desk.broker(), &[resume], false);
    desk.hears("command_result", "resumed", |line| line["counter"] == 2 && line["outcome"] == "done");
    assert!(desk.listens());
    // The replay of the pause is answered from memory and changes nothing; signed for an older counter it is refused.
    publish(desk.broker(), std::slice::from_ref(&good), false);
    wait::wait_until("the replay is answered", wait::EVENTUALLY, || {
        desk.heard("command_result").iter().filter(|line| line["counter"] == 1 && line["outcome"] == "done").count() == 2
    });
    let now = desk.standing(Some(&next));
    let old_counter = Standing { highest_counter: 0, ..now.clone() };
    publish(
        desk.broker(),
        &[envelope("st-marys-gw1", &Standing { challenge: now.challenge.clone(), ..old_counter }, pause, signer())],
        false,
    );
    assert!(desk.listens() && !desk.has("feed_paused"));
    assert_eq!((desk.begun(1), desk.begun(2), desk.begun(3)), (1, 1, 0));
}

/// A restart takes the memory of what was answered: then a replay is in doubt, and never carried out again. Killed at random moments around a command,
/// each is begun at most once, whatever is sent again.
#[test]
fn killed_in_between_a_command_is_carried_out_at_most_once() {
    let kills: u64 = if harness::long() { 60 } else { 6 };
    let mut desk = Desk::open(0, "");
    let (mut told, mut doubts, mut counters) = (Vec::new(), 0, 0);
    for kill in 0..kills {
        let standing = desk.standing(None);
        let counter = standing.highest_counter + 1;
        let command = envelope("st-marys-gw1", &standing, ("accept_resend", &["feed=or-usage", "for_s=60"]), signer());
        publish(desk.broker(), std::slice::from_ref(&command), false);
        std::thread::sleep(Duration::from_millis((kill * 7) % 40));
        desk.scene.site.kill();
        desk.scene.site.start();
        desk.connected();
        let heard = desk.heard("command_result").len();
        publish(desk.broker(), &[command.clone(), command], false);
        let answered = || desk.heard("command_result").into_iter().skip(heard).find(|line| line["counter"] == counter);
        let answer = wait::wait_for("the repetition is answered", wait::EVENTUALLY, answered);
        let code = answer["code"].as_str().unwrap_or_default().to_owned();
        // Written down before the kill: in doubt. Not written down: its challenge is gone. Queued at the broker it may have come in between.
        assert!(["in_doubt", "old_challenge", "done"].contains(&code.as_str()), "{answer}");
        assert!(desk.begun(counter) <= 1, "command {counter} was begun {} times", desk.begun(counter));
        if code == "in_doubt" {
            doubts += 1;
            assert_eq!(desk.standing(None).highest_counter, counter, "what is in doubt was written down");
        }
        told.push(code);
        counters = counter;
    }
    println!(
        "commands: {kills} kills around a command, repetitions answered {told:?}; {doubts} in doubt, up to counter {counters}, none twice"
    );
    desk.done(&["checkpoint"]);
}

/// I4, I6: somebody with the broker's password floods the topic: the audit and the log stay small, all of it is counted, messages flow, and a signed
/// command is carried out in the middle of it.
#[test]
fn a_flood_of_forgeries_neither_fills_the_audit_nor_stops_a_command() {
    let (rounds, each) = if harness::long() { (40, 5_000) } else { (8, 1_000) };
    let mut desk = Desk::open(0, "");
    let broker = desk.broker();
    let forged = envelope("st-marys-gw1", &desk.standing(None), ("checkpoint", &[]), stranger(desk.scene.directory.path()));
    let log_before = desk.scene.site.log().len();
    let flood = std::thread::spawn(move || {
        for _ in 0..rounds {
            publish(broker, &vec![forged.clone(); each], false);
        }
    });
    desk.send(50, 700);
    desk.done(&["checkpoint"]);
    flood.join().expect("the flood ends");
    desk.send(50, 700);
    desk.hears("audit", "the flood is told", |line| line["what"] == "command_refused" && line["subject"] == "not_verified");
    desk.scene.site.condition("command_refused", wait::SOON);
    desk.scene.hub.wait_for_events(100);
    let (audit, results) = (desk.heard("audit").len(), desk.heard("command_result").len());
    let log = desk.scene.site.log().len() - log_before;
    assert!(audit < 50 && results < 50, "{audit} audit lines and {results} results of {} forgeries", rounds * each);
    assert!(log < 64 * 1024, "{log} bytes of log");
    println!("commands: {} forgeries, {audit} audit lines, {results} results, {log} bytes of log", rounds * each);
    if harness::long() {
        desk.hears("audit", "the rest is counted", |line| {
            line["subject"] == "flood" || line["reason"].as_str().is_some_and(|r| r.contains("others"))
        });
    }
    let complaints = desk.scene.hub.audit().complaints();
    assert!(complaints.is_empty(), "{complaints:?}");
    assert_eq!(json!(desk.begun(1)), json!(1));
}
