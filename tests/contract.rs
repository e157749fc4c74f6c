//! The contract for those who write their own hub: `agent/contract/` against what really travels, and against everything the types can say.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use harness::files::{Folder, csv};
use harness::message;
use harness::mosquitto;
use harness::observer::{self, Seen};
use harness::scene::Scene;
use harness::wait;
use jsonschema::Validator;
use serde_json::{Map, Value, json};
use siteward::contract::{Checkpoint, GatewayState, Mark, OnlineState, Outcome, Receipt};
use siteward::record::{Chain, Digest, FeedId, Incarnation, Position};

fn contract() -> PathBuf {
    harness::repository().join("agent/contract")
}

fn schema(name: &str) -> Validator {
    let path = contract().join("schemas").join(format!("{name}.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let schema: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{} is no schema: {error}", path.display()))
}

fn faults(validator: &Validator, value: &Value) -> Vec<String> {
    validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// The schema's name for what travels on a topic, by the level after the gateway.
fn kind(topic: &str) -> &str {
    topic.split('/').nth(4).unwrap_or_default()
}

fn instance(seen: &Seen) -> Value {
    if kind(&seen.topic) == "event" {
        return Value::Object(seen.properties.iter().map(|(name, value)| (name.clone(), json!(value))).collect::<Map<_, _>>());
    }
    serde_json::from_slice(&seen.payload).unwrap_or_else(|error| panic!("{} carries no JSON: {error}", seen.topic))
}

/// Everything that a gateway and a hub say to each other in a day with messages, files and a restart is as the schemas say.
#[test]
fn real_traffic_is_as_the_contract_says() {
    let mut folder = None;
    let mut scene = Scene::new(mosquitto::Options { persistence: true, packet_bytes_max: 0 }, |configuration| {
        let parent = configuration.spool.parent().expect("the spool lies in the site").join("in");
        let rows = Folder::new(&parent, "cabinet");
        configuration.sections.push(rows.section(&["split = \"csv\"", "complete = \"rename\"", "name_in_events = true"]));
        folder = Some(rows);
    });
    let folder = folder.expect("made above");
    let broker = scene.broker.plain();
    let observer = std::thread::spawn(move || {
        let kinds = |seen: &[Seen]| seen.iter().filter(|s| kind(&s.topic) == "event").count() >= 60 && has_all(seen);
        observer::collect(broker, "siteward/v1/#", wait::EVENTUALLY, kinds)
    });
    std::thread::sleep(Duration::from_millis(500)); // the observer is there first
    scene.start();
    for part in 0..2 {
        let mut wire = scene.site.wire();
        for number in 1..=20 {
            assert!(wire.exchange(&message::build(0, part * 20 + number, 700)).expect("an answer").positive());
        }
        folder.put(&format!("usage-{part}.csv"), &csv(part * 10 + 1, part * 10 + 10));
        wait::wait_until("the file is taken", wait::EVENTUALLY, || folder.is_done(&format!("usage-{part}.csv")));
        scene.site.stop();
        scene.site.start();
    }
    let seen = observer.join().expect("the observer");
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, file) in
        [("event", "event-attributes"), ("checkpoint", "checkpoint"), ("status", "status"), ("receipt", "receipt"), ("outcome", "outcome")]
    {
        let validator = schema(file);
        for publish in seen.iter().filter(|s| kind(&s.topic) == name) {
            let instance = instance(publish);
            assert_eq!(faults(&validator, &instance), Vec::<String>::new(), "{}: {instance}", publish.topic);
            *counts.entry(name).or_default() += 1;
        }
    }
    assert!(counts["event"] >= 60 && counts["checkpoint"] >= 2 && counts["receipt"] >= 1 && counts["status"] >= 2, "{counts:?}");
    println!("contract: publishes as the schemas say: {counts:?}");
}

fn has_all(seen: &[Seen]) -> bool {
    ["checkpoint", "receipt", "status"].iter().all(|wanted| seen.iter().any(|s| kind(&s.topic) == *wanted))
}

/// What is rare on the wire: every variant of every payload, as the agent's own types write it.
#[test]
fn everything_the_types_can_say_is_as_the_contract_says() {
    let feed = FeedId::new("or-usage").expect("a name");
    let (incarnation, chain) = (Incarnation([7; 16]), Chain([9; 32]));
    let mark = Mark { seq: 0, chain: Chain::GENESIS };
    let follows = Some(Position { incarnation, seq: 12, chain });
    let payloads: Vec<(&str, Value)> = vec![
        ("checkpoint", json!(Checkpoint::Open { feed: feed.clone(), incarnation, follows: None, settled: mark })),
        ("checkpoint", json!(Checkpoint::Open { feed: feed.clone(), incarnation, follows, settled: mark })),
        ("checkpoint", json!(Checkpoint::Head { feed: feed.clone(), incarnation, seq: u64::MAX, chain, count: 1, settled: mark })),
        ("outcome", json!(Outcome::Exception { incarnation, seq: 1, digest: Digest([1; 32]), chain, reason: "too_large".into() })),
        ("outcome", json!(Outcome::Gap { incarnation, first: 1, last: 2, chain, reason: "damaged".into() })),
        ("receipt", json!(Receipt { feed, incarnation, through_seq: 0, chain, missing: vec![(1, 2), (4, 4)] })),
        ("status", json!(GatewayState { state: OnlineState::Offline, version: "0.1.0".into(), since: None })),
    ];
    for (name, payload) in payloads {
        let validator = schema(name);
        assert_eq!(faults(&validator, &payload), Vec::<String>::new(), "{name}: {payload}");
        // The schema is no blank cheque: without any one of its members that are required the same payload is refused.
        let members: Vec<String> = payload.as_object().expect("an object").keys().cloned().collect();
        for member in members.iter().filter(|member| !["missing", "since"].contains(&member.as_str())) {
            let mut less = payload.clone();
            less.as_object_mut().expect("an object").remove(member);
            assert!(!validator.is_valid(&less), "{name} without {member} is taken");
        }
    }
}

/// The document names every topic that the code knows, and every schema it refers to is there.
#[test]
fn the_document_names_what_is_there() {
    let document = fs::read_to_string(contract().join("asyncapi.yaml")).expect("agent/contract/asyncapi.yaml");
    for address in ["event/{feed}", "outcome/{feed}", "checkpoint", "status", "receipt"] {
        assert!(document.contains(&format!("address: siteward/v1/{{site}}/{{gateway}}/{address}\n")), "no channel for {address}");
    }
    let mut named = 0;
    for reference in document.split("./schemas/").skip(1) {
        let name = reference.split(".json").next().unwrap_or_default();
        schema(name);
        named += 1;
    }
    assert_eq!(named, fs::read_dir(contract().join("schemas")).expect("the schemas").count(), "a schema that the document does not name");
}
