//! What a sender asked for, and said of its message, from its socket to the hub's output.

use harness::link::Weather;
use harness::message;
use harness::mosquitto;
use harness::scene::Scene;
use harness::wait;
use serde_json::Value;

/// An HL7 message with these MSH-11, MSH-15, MSH-16.
fn with(id: &str, processing_id: &str, accept: &str, application: &str) -> Vec<u8> {
    format!(
        "MSH|^~\\&|CABINET|ST-MARYS|SITEWARD|HUB|20261122101500-0500||DFT^P03^DFT_P03|{id}|{processing_id}|2.5.1|||{accept}|{application}\r\
         FT1|1|||20261122101459-0500||CG|0064-1234^GUIDEWIRE^LOCAL||-1|EA\r"
    )
    .into_bytes()
}

/// The lines of events at the hub, by their `controlid`.
fn event(scene: &Scene, id: &str) -> Value {
    let text = std::fs::read_to_string(scene.hub.out()).expect("the hub's output");
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    lines.find(|line| line["kind"] == "event" && line["attributes"]["controlid"] == id).unwrap_or_else(|| panic!("no event of {id}"))
}

/// I3: what a message says of itself is kept with it: through a kill of the agent with the WAN down, to the hub's line.
#[test]
fn a_message_for_training_or_debugging_is_test_at_the_hub_also_after_a_crash() {
    let mut scene = Scene::new(mosquitto::Options::default(), |_| {});
    scene.link.set(Weather::Down);
    scene.start();
    let mut wire = scene.site.wire();
    for (id, processing_id) in [("TRAINING", "T"), ("DEBUGGING", "D^A"), ("PRODUCTION", "P"), ("UNSAID", "")] {
        assert_eq!(wire.exchange(&with(id, processing_id, "", "")).expect("an answer").code, "AA");
    }
    let inner = |id, processing_id| with(id, processing_id, "", "");
    let batch = [&b"BHS|^~\\&|CABINET|ST-MARYS|||||||BATCH\r"[..], &inner("B1", "P"), &inner("B2", "T"), b"BTS|3\r"].concat();
    wire.send(&batch).expect("it is read");
    let reply = String::from_utf8(wire.frame().expect("an answer")).expect("text");
    assert!(reply.starts_with("BHS|") && reply.contains("\rMSA|AA|B1\r") && reply.contains("\rMSA|AA|B2\r") && reply.ends_with("BTS|2\r"));
    scene.site.condition("batch_count_mismatch", wait::SOON);
    scene.site.kill();
    scene.site.start();
    scene.link.set(Weather::Fair);
    scene.hub.wait_for_events(5);
    for (id, stage) in [("TRAINING", "test"), ("DEBUGGING", "test"), ("PRODUCTION", "live"), ("UNSAID", "live"), ("BATCH", "test")] {
        let line = event(&scene, id);
        assert_eq!((line["stage"].as_str(), line["attributes"]["stage"].as_str()), (Some(stage), Some(stage)), "{id}");
        assert_eq!(line["attributes"]["charset"], "UTF-8", "{id}");
    }
    assert_eq!(event(&scene, "BATCH")["attributes"]["batchmismatch"], "true");
    assert_eq!(event(&scene, "PRODUCTION")["attributes"].get("batchmismatch"), None);
}

/// The feed's wishes on a running agent: which messages it takes, and how it answers those that ask for two acknowledgements.
#[test]
fn the_feed_decides_what_it_takes_and_how_it_answers() {
    let mut scene = Scene::new(mosquitto::Options::default(), |c| {
        let lines =
            ["app_ack = \"same_channel\"", "on_invalid = \"close\"", "strict = { types = [\"DFT^P03\"], processing_ids = [\"P\"] }"];
        c.feeds[0].mllp.extend(lines.map(str::to_owned));
    });
    scene.start();
    let mut wire = scene.site.wire();
    wire.send(&with("BOTH", "P", "AL", "AL")).expect("it is read");
    let codes = [wire.reply().expect("the first").code, wire.reply().expect("the second").code];
    assert_eq!(codes, ["CA", "AA"]);
    assert_eq!(wire.exchange(&with("ONE", "P", "AL", "NE")).expect("an answer").code, "CA");
    let refused = wire.exchange(&with("TRAINING", "T", "", "")).expect("an answer");
    assert_eq!(refused.code, "AR");
    assert!(String::from_utf8_lossy(&refused.raw).contains("|202^Unsupported processing id^HL70357|E|"));
    wire.send(b"no header at all").expect("it is read");
    assert!(wire.closed_without_reply());
    let mut wire = scene.site.wire();
    assert!(wire.exchange(&message::build(1, 1, 500)).expect("an answer").positive(), "a new connection is served");
    scene.hub.wait_for_events(3);
    assert_eq!(scene.site.feed_status("or-usage")["captured"], 3);
}
