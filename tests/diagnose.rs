//! "It does not work": what the technician and the integration engineer are told by the running agent, and what they are never told.
//!
//! Every output of every command here is held against the strings that stand for patients (I7).

use std::path::PathBuf;
use std::process::{Command, Output};

use harness::link::Weather;
use harness::message::{self, CANARIES};
use harness::mosquitto;
use harness::process::Process;
use harness::scene::{Directory, Scene};
use harness::sender::Wire;
use harness::site::{Configuration, Site};
use harness::wait;
use serde_json::Value;

const FEED: &str = "or-usage";

/// What stands in the messages sent here and must stay there: the canaries, and other values of them.
fn secrets() -> Vec<&'static str> {
    CANARIES.into_iter().chain(["ZEBRAFINCH", "MRN-4711", "19700101", "GUIDEWIRE", "CABINET", "ST-MARYS"]).collect()
}

fn keeps_quiet(what: &str, text: &str) {
    for secret in secrets() {
        assert!(!text.contains(secret), "{what} tells {secret}:\n{text}");
    }
}

/// Runs a command and looks for what it must not say.
fn run(site: &Site, arguments: &[&str]) -> (Output, String) {
    let output = site.command(arguments);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    keeps_quiet(&arguments.join(" "), &text);
    (output, text)
}

fn json(site: &Site, arguments: &[&str]) -> Value {
    let (output, text) = run(site, arguments);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?} gives no JSON ({e}): {text}"))
}

fn gateway(adjust: impl FnOnce(&mut Configuration)) -> (Site, Directory) {
    let directory = Directory::new();
    let mut configuration = Configuration::new(directory.path());
    adjust(&mut configuration);
    let mut site = Site::new(directory.path(), configuration);
    site.start();
    (site, directory)
}

/// A command that watches, from when it has been told that it does.
struct Watcher {
    process: Process,
    log: PathBuf,
}

impl Watcher {
    fn start(site: &Site, name: &str, arguments: &[&str]) -> Self {
        let log = site.directory.join(format!("{name}.log"));
        let mut command = Command::new(harness::program("siteward"));
        command.args(arguments).arg("--config").arg(site.config_file());
        let watcher = Self { process: Process::start(name, &mut command, &log), log };
        wait::wait_until("the watch has begun", wait::SOON, || watcher.said().contains("watching"));
        watcher
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its exit code and everything it said.
    fn finish(mut self) -> (Option<i32>, String) {
        let status = self.process.ended(wait::SOON);
        let said = self.said();
        keeps_quiet("a watcher", &said);
        (status.code(), said)
    }
}

/// I7: names, counts, codes and addresses; no content.
#[test]
fn feeds_shows_who_is_there_what_they_were_answered_and_why_they_left() {
    let (site, _directory) = gateway(|_| {});
    let mut wire = site.wire();
    wire.exchange(&message::build(1, 1, 700)).expect("an answer");
    wire.send_raw(b"ZEBRAFINCH^CANARY is no frame\r").expect("junk is sent");
    wire.exchange(&message::build(1, 1, 700)).expect("an answer to the same again");
    let nameless = String::from_utf8(message::with_id("", 7, 500)).expect("text");
    assert_eq!(wire.exchange(nameless.as_bytes()).expect("an answer").code, "AE");
    {
        let mut other = site.wire();
        other.send_raw(b"\x0bMSH|^~\\&|ZEBRAFINCH^CANARY").expect("half a frame is sent");
    }
    let ended = || json(&site, &["feeds", "--json"])["feeds"][0]["ended"].as_array().cloned().unwrap_or_default();
    let cut = |c: &Value| c["oddities"]["connection_lost_in_frame"] == 1;
    wait::wait_until("the second connection has ended", wait::SOON, || ended().iter().any(cut));
    let feed = json(&site, &["feeds", "--feed", FEED, "--json"])["feeds"][0].clone();
    assert_eq!((&feed["id"], &feed["captured"], &feed["duplicates"], &feed["refused"]), (&FEED.into(), &1.into(), &1.into(), &1.into()));
    let connection = &feed["connections"][0];
    let local = wire.stream().local_addr().expect("an address").to_string();
    assert_eq!((connection["peer"].as_str(), connection["messages"].as_u64()), (Some(local.as_str()), Some(3)));
    assert_eq!(connection["acks"], serde_json::json!({ "AA": 2, "AE": 1 }));
    assert_eq!(connection["oddities"], serde_json::json!({ "junk_between_frames": 1, "no_control_id": 1 }));
    assert!(connection["last_message"].is_string() && connection["bytes"].as_u64() > Some(1400));
    assert!(ended().iter().filter(|c| cut(c)).all(|c| c["ended"]["why"] == "the peer closed it"));
    let (output, text) = run(&site, &["feeds"]);
    assert!(output.status.success() && text.contains(&local) && text.contains("AA 2, AE 1") && text.contains("no_control_id 1"), "{text}");

    let (output, text) = run(&site, &["feeds", "--feed", "or-usge"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("did you mean `or-usage`?"), "{text}");

    // The copy is made behind the connection's back.
    let codes = || -> Vec<String> {
        let listed = json(&site, &["quarantine", "list", "--json"]);
        listed["entries"].as_array().into_iter().flatten().filter_map(|e| Some(e["code"].as_str()?.to_owned())).collect()
    };
    wait::wait_until("both are in quarantine", wait::SOON, || codes() == ["connection_lost_in_frame", "no_control_id"]);
    let (_, text) = run(&site, &["quarantine", "list", "--feed", FEED]);
    assert!(text.contains("no_control_id") && text.contains(&local), "{text}");
}

fn find(site: &Site, by: &[&str]) -> Value {
    let mut arguments = vec!["messages", "find", "--feed", FEED, "--json"];
    arguments.extend(by);
    json(site, &arguments)
}

fn state(found: &Value) -> Option<&str> {
    found["messages"][0]["state"].as_str()
}

/// I7, I10: the timeline of a message from its reception to the receipt, by control id, by seq and by time; kept over a restart.
#[test]
fn a_message_is_found_with_its_times_in_every_state() {
    let mut scene = Scene::new(mosquitto::Options::default(), |_| {});
    scene.site.start();
    let mut wire = scene.site.wire();
    for number in 1..=3 {
        wire.exchange(&message::build(1, number, 700)).expect("an answer");
    }
    let id = message::control_id(1, 2);
    let by_id = ["--control-id", id.as_str()];
    // No hub: nobody is subscribed, so nothing is in flight for good and nothing settles.
    let found = find(&scene.site, &by_id);
    assert_ne!(state(&found), Some("settled"), "{found}");
    assert_eq!((found["messages"][0]["seq"].as_u64(), found["messages"][0]["ack"].as_str()), (Some(2), Some("AA")));
    assert!(found["searched"].as_u64() >= Some(3), "the journal was looked at: {found}");

    scene.hub.start();
    scene.hub.wait_for_events(3);
    wait::wait_until("the message is settled", wait::EVENTUALLY, || state(&find(&scene.site, &by_id)) == Some("settled"));
    wire.exchange(&message::build(1, 2, 700)).expect("an answer to the same again");
    let message = find(&scene.site, &by_id)["messages"][0].clone();
    for time in ["received_at", "ack_at", "published_at", "puback_at", "settled_at"] {
        assert!(message[time].is_string(), "{time} is missing: {message}");
    }
    assert_eq!(message["duplicates"].as_array().map(Vec::len), Some(1), "{message}");
    let (_, text) = run(&scene.site, &["messages", "find", "--feed", FEED, "--seq", "2"]);
    for part in ["received", "answered AA", "published", "PUBACK", "settled", "came again", &id] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    let duplicates = json(&scene.site, &["messages", "duplicates", "--feed", FEED, "--json"]);
    assert_eq!((&duplicates["duplicates"][0]["control_id"], &duplicates["duplicates"][0]["seq"]), (&id.as_str().into(), &2.into()));

    // Cut off: what comes now is queued, and the rest is still known after a restart.
    scene.link.set(Weather::Down);
    wire.exchange(&message::build(1, 4, 700)).expect("an answer");
    // Until the agent knows that it is cut off, it may be in flight.
    wait::wait_until("it is queued", wait::EVENTUALLY, || state(&find(&scene.site, &["--seq", "4"])) == Some("queued"));
    drop(wire);
    scene.site.stop();
    scene.site.start();
    let all = find(&scene.site, &["--since", "1h"]);
    let states: Vec<(u64, &str)> =
        all["messages"].as_array().into_iter().flatten().filter_map(|m| Some((m["seq"].as_u64()?, m["state"].as_str()?))).collect();
    assert_eq!(states, [(4, "queued"), (3, "settled"), (2, "settled"), (1, "settled")], "{all}");
    let page = find(&scene.site, &["--since", "1h", "--limit", "2"]);
    let below = page["more_below"].as_u64().expect("there is more").to_string();
    assert_eq!(find(&scene.site, &["--since", "1h", "--before", &below])["messages"][0]["seq"], 2);
    let (output, text) = run(&scene.site, &["messages", "find", "--feed", FEED, "--control-id", "NEVER"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text.contains("nothing found") && text.contains("searched"), "{text}");
}

/// I7: the shape of a message and its codes, never a value, wherever in the message it stands.
#[test]
fn sniff_prints_structure_and_no_values() {
    let (site, _directory) = gateway(|_| {});
    let watcher = Watcher::start(&site, "sniff", &["sniff", "--feed", FEED, "--count", "3", "--timeout", "2m"]);
    let mut wire = site.wire();
    wire.exchange(&message::build(1, 1, 700)).expect("an answer");
    let odd = format!("MSH|^~\\&|A|B|||{0}||{0}|ID2|{0}|{0}|||{0}|{0}||{0}\r{0}|x\nZ{0}\r\nPID|1||{0}", CANARIES[0]);
    wire.exchange(odd.as_bytes()).expect("an answer");
    wire.exchange(&message::build(1, 1, 700)).expect("an answer");
    let (code, said) = watcher.finish();
    assert_eq!(code, Some(0), "{said}");
    for part in
        ["accepted, answered AA", "duplicate, answered AA", "type DFT^P03^DFT_P03", "version 2.5.1", "processing P", "FT1", "unusual"]
    {
        assert!(said.contains(part), "{part} is missing:\n{said}");
    }
    let (output, text) = run(&site, &["sniff", "--feed", FEED, "--timeout", "1s"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text.contains("no message came"), "{text}");
}

/// I4: as many may watch as may; the status is answered all the same.
#[test]
fn watchers_are_bounded_and_hold_nobody_up() {
    let (site, _directory) = gateway(|_| {});
    let arguments = ["sniff", "--feed", FEED, "--count", "100", "--timeout", "2m"];
    let watchers: Vec<Watcher> = (0..4).map(|n| Watcher::start(&site, &format!("sniff-{n}"), &arguments)).collect();
    let (output, text) = run(&site, &arguments);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("as many watch"), "{text}");
    assert!(site.try_status().is_some());
    drop(watchers);
    wait::wait_until("the places are free again", wait::SOON, || {
        site.command(&["sniff", "--feed", FEED, "--timeout", "1s"]).status.code() == Some(3)
    });
}

/// One scripted message, and its case.
struct Scripted {
    case: String,
    message: Vec<u8>,
    ack: &'static str,
}

/// A vendor's message with its own codes in MSH.
fn vendor(id: &str, kind: &str, processing: &str, acks: &str) -> Vec<u8> {
    let text = String::from_utf8(message::with_id(id, 5, 600)).expect("text");
    let text = text.replace("DFT^P03^DFT_P03", kind).replace("|P|2.5.1\r", &format!("|{processing}|2.5.1{acks}\r"));
    text.into_bytes()
}

/// Twenty messages of a vendor: plain ones by control id and by order, a deliberate resend, one over the limit, one without a control id,
/// one in enhanced mode, and one that says itself that it is a test.
fn script() -> Vec<Scripted> {
    let case = |name: &str, kind: &str, expect: &str, more: &str| {
        format!("[[case]]\nname = \"{name}\"\ntype = \"{kind}\"\nexpect = \"{expect}\"\n{more}\n")
    };
    let mut script: Vec<Scripted> = (1..=12)
        .map(|n| Scripted {
            case: case(
                &format!("usage {n}"),
                "DFT^P03",
                "accepted",
                &format!("control_id = \"VT-{n:03}\"\nack = \"AA\"\nstage = \"live\""),
            ),
            message: vendor(&format!("VT-{n:03}"), "DFT^P03^DFT_P03", "P", ""),
            ack: "AA",
        })
        .collect();
    script.extend((1..=3).map(|n| Scripted {
        case: case(&format!("order {n}"), "ORM^O01", "accepted", ""),
        message: vendor(&format!("ANY-{n}"), "ORM^O01", "P", ""),
        ack: "AA",
    }));
    script.push(Scripted {
        case: case("deliberate resend", "DFT^P03", "duplicate", "control_id = \"VT-003\"\nack = \"AA\""),
        message: vendor("VT-003", "DFT^P03^DFT_P03", "P", ""),
        ack: "AA",
    });
    script.push(Scripted {
        case: case("too large", "DFT^P03", "oversize", "control_id = \"VT-BIG*\"\nack = \"AR\""),
        message: message::with_id("VT-BIG-1", 5, 80_000),
        ack: "AR",
    });
    script.push(Scripted {
        case: case("without a control id", "DFT^P03", "refused", "ack = \"AE\""),
        message: vendor("", "DFT^P03^DFT_P03", "P", ""),
        ack: "AE",
    });
    script.push(Scripted {
        case: case("enhanced mode", "DFT^P03", "accepted", "control_id = \"VT-CA\"\nack = \"CA\""),
        message: vendor("VT-CA", "DFT^P03^DFT_P03", "P", "|||AL|NE"),
        ack: "CA",
    });
    script.push(Scripted {
        case: case("marked as a test", "DFT^P03", "test", "control_id = \"VT-TEST\""),
        message: vendor("VT-TEST", "DFT^P03^DFT_P03", "T", ""),
        ack: "AA",
    });
    script
}

fn play(wire: &mut Wire, script: &[Scripted]) {
    for scripted in script {
        let reply = wire.exchange(&scripted.message).expect("an answer");
        assert_eq!(reply.code, scripted.ack, "{}", scripted.case);
    }
}

/// I7: the sheet of a vendor test is right, holds no values, and agrees with what the hub got: nothing that is a test is marked live.
#[test]
fn a_vendor_test_of_twenty_messages_ends_with_a_sheet_that_is_right() {
    let mut scene = Scene::new(mosquitto::Options::default(), |c| c.spool_lines.push("message_bytes_max = \"64KiB\"".into()));
    scene.start();
    let script = script();
    assert_eq!(script.len(), 20);
    let cases = scene.directory.path().join("cases.toml");
    std::fs::write(&cases, script.iter().map(|s| s.case.as_str()).collect::<String>()).expect("the script is written");
    let sheet = scene.directory.path().join("sheet.json");
    let (script_file, sheet_file) = (cases.display().to_string(), sheet.display().to_string());
    let record = ["feeds", "record", "--feed", FEED, "--script", &script_file, "--out", &sheet_file, "--timeout", "2m"];
    let watcher = Watcher::start(&scene.site, "record", &[&record[..], &["--json"]].concat());
    play(&mut scene.site.wire(), &script);
    let (code, said) = watcher.finish();
    let text = std::fs::read_to_string(&sheet).expect("the sheet was written");
    keeps_quiet("the sheet", &text);
    assert!(!text.contains("VT-"), "no control id either:\n{text}");
    assert_eq!(code, Some(0), "{said}\n{text}");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((json["passed"].as_bool(), json["complete"].as_bool()), (Some(true), Some(true)), "{text}");
    let rows = json["cases"].as_array().expect("cases");
    let of = |name: &str| &rows.iter().find(|row| row["case"] == name).unwrap_or_else(|| panic!("no row {name}"))["received"];
    assert_eq!(rows.len(), 20);
    assert_eq!((&of("deliberate resend")["fate"], &of("deliberate resend")["ack"]), (&"duplicate".into(), &"AA".into()));
    assert_eq!((&of("too large")["fate"], &of("too large")["ack"]), (&"oversize".into(), &"AR".into()));
    assert_eq!((&of("enhanced mode")["ack"], &of("enhanced mode")["control_id_matched"]), (&"CA".into(), &true.into()));
    assert_eq!(of("marked as a test")["stage"], "test");

    scene.hub.wait_for_events(17);
    let events = std::fs::read_to_string(scene.hub.out()).expect("the hub's output");
    let events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).filter(|line| line["kind"] == "event");
    let stages: Vec<(String, String)> =
        events.map(|e| ["controlid", "stage"].map(|name| e["attributes"][name].as_str().unwrap_or_default().to_owned()).into()).collect();
    assert_eq!(stages.len(), 17);
    for (id, stage) in stages {
        assert_eq!(stage, if id == "VT-TEST" { "test" } else { "live" }, "{id} at the hub");
    }
}

/// A vendor test that is given up leaves what it has shown so far, and says so.
#[test]
fn an_interrupted_vendor_test_leaves_its_sheet() {
    let (site, directory) = gateway(|_| {});
    let (cases, sheet) = (directory.path().join("cases.toml"), directory.path().join("sheet.md"));
    let text = "[[case]]\nname = \"first\"\nexpect = \"accepted\"\n[[case]]\nname = \"never\"\nexpect = \"accepted\"\n";
    std::fs::write(&cases, text).expect("the script is written");
    let (cases, out) = (cases.display().to_string(), sheet.display().to_string());
    let watcher = Watcher::start(&site, "record", &["feeds", "record", "--feed", FEED, "--script", &cases, "--out", &out]);
    site.wire().exchange(&message::build(1, 1, 700)).expect("an answer");
    wait::wait_until("the first case came", wait::SOON, || watcher.said().contains("1 of 2"));
    watcher.process.terminate();
    let (code, said) = watcher.finish();
    let text = std::fs::read_to_string(&sheet).expect("the sheet was written");
    assert_eq!(code, Some(3), "{said}");
    assert!(text.contains("INTERRUPTED") && text.contains("1 of 2 cases passed") && text.contains("did not come"), "{text}");
}

/// I3: while a feed is open for resends, what came before goes to the hub again and says which record it repeats; then no longer.
#[test]
fn a_deliberate_resend_reaches_the_hub_as_such() {
    let mut scene = Scene::new(mosquitto::Options::default(), |_| {});
    scene.start();
    let mut wire = scene.site.wire();
    let mut send = |number| wire.exchange(&message::build(1, number, 700)).expect("an answer");
    let first = send(1);
    assert_eq!(send(1), first, "a duplicate gets the same answer");
    let (output, text) = run(&scene.site, &["feeds", "accept-resend", "--feed", FEED, "--for", "25h"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("up to 24 hours"), "{text}");
    let (output, text) = run(&scene.site, &["feeds", "accept-resend", "--feed", FEED, "--for", "1h"]);
    assert!(output.status.success() && text.contains("until"), "{text}");
    assert!(scene.site.conditions().contains(&"accept_resend_open".to_owned()));
    let again = send(1);
    assert!(again.positive() && again != first, "a record of its own has an answer of its own");
    send(2);
    scene.hub.wait_for_events(3);
    let events = std::fs::read_to_string(scene.hub.out()).expect("the hub's output");
    let events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).filter(|line| line["kind"] == "event");
    let resends: Vec<(Value, Value)> = events.map(|e| (e["seq"].clone(), e["attributes"]["resendof"].clone())).collect();
    assert_eq!(resends, [(1.into(), Value::Null), (2.into(), "1".into()), (3.into(), Value::Null)]);
    assert_eq!(find(&scene.site, &["--seq", "2"])["messages"][0]["resend_of"], 1);
    assert_eq!(find(&scene.site, &["--seq", "1"])["messages"][0]["duplicates"].as_array().map(Vec::len), Some(1));

    let (output, _) = run(&scene.site, &["feeds", "accept-resend", "--feed", FEED, "--for", "1s"]);
    assert!(output.status.success());
    let ended = || !scene.site.conditions().contains(&"accept_resend_open".to_owned());
    wait::wait_until("the time is over", wait::SOON, ended);
    assert_eq!(send(1), again, "suppressed again, with the answer of the newest copy");
}

#[test]
fn a_vendor_test_that_does_not_pass_says_what_differs() {
    let (site, directory) = gateway(|_| {});
    let cases = directory.path().join("cases.toml");
    let path = cases.display().to_string();
    let record = ["feeds", "record", "--feed", FEED, "--script", &path, "--timeout", "3s"];
    std::fs::write(&cases, "[[case]]\nname = \"one\"\nexpect = \"accepted\"\ncontroll_id = \"V1\"\n").expect("written");
    let (output, text) = run(&site, &record);
    assert_eq!(output.status.code(), Some(78));
    assert!(text.contains("cases.toml:4") && text.contains("did you mean \"control_id\"?"), "{text}");

    std::fs::write(
        &cases,
        "[[case]]\nname = \"one\"\nexpect = \"refused\"\ncontrol_id = \"V1\"\n[[case]]\nname = \"two\"\nexpect = \"accepted\"\ntype = \"ADT\"\n",
    )
    .expect("written");
    let watcher = Watcher::start(&site, "record", &record);
    let mut wire = site.wire();
    wire.exchange(&message::with_id("V1", 1, 500)).expect("an answer");
    wire.exchange(&message::with_id("V2", 2, 500)).expect("an answer");
    let (code, said) = watcher.finish();
    assert_eq!(code, Some(3), "{said}");
    for part in ["FAIL: was accepted, not refused", "FAIL: did not come", "1 messages that no case expects"] {
        assert!(said.contains(part), "{part} is missing:\n{said}");
    }
}
