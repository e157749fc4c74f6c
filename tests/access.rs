//! Who may do what: each group at its own socket; and the audit log, from the intent on disk to the hub, over kills, outages and tampering.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use harness::message::{self, CANARIES};
use harness::scene::Scene;
use harness::site::{Configuration, Feed};
use harness::{canary, document, mosquitto, wait};
use serde_json::Value;

/// Numbers that no user or group of a machine has.
const USER: u32 = 61_001;
const GROUPS: [(&str, u32); 3] = [("siteward-view", 61_011), ("siteward-operate", 61_012), ("siteward-phi", 61_013)];

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn open(adjust: impl FnOnce(&mut Configuration)) -> Scene {
    open_with(mosquitto::Options { persistence: true, packet_bytes_max: 0 }, adjust)
}

fn open_with(options: mosquitto::Options, adjust: impl FnOnce(&mut Configuration)) -> Scene {
    let mut scene = Scene::new(options, |configuration| {
        configuration.feeds.push(Feed::new("lab", "normal"));
        adjust(configuration);
    });
    scene.start();
    connected(&scene);
    scene
}

fn connected(scene: &Scene) {
    wait::wait_until("the uplink is up", wait::EVENTUALLY, || scene.site.status()["uplink"]["state"] == "connected");
}

fn good(scene: &Scene, arguments: &[&str]) -> String {
    let output = scene.site.command(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", told(&output));
    told(&output)
}

fn verify_at_hub(out: &Path) -> Output {
    Command::new(harness::program("siteward-hub")).args(["audit", "verify"]).arg(out).output().expect("the tool runs")
}

/// The hub has a record of this, with this stage.
fn hub_hears(scene: &Scene, what: &str) -> Value {
    wait::wait_for(&format!("the hub has {what}"), wait::EVENTUALLY, || {
        document::audited(scene).into_iter().find(|record| record["what"] == what)
    })
}

fn segment(scene: &Scene) -> PathBuf {
    scene.site.configuration.spool.join("audit/0000000000000001.log")
}

/// Everybody may pass through; what is inside decides.
fn passable(directory: &Path) {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("ours");
}

/// Each verb, by a member of each group, and what it needs.
const VERBS: [(&str, &[&str]); 14] = [
    ("siteward-view", &["status"]),
    ("siteward-view", &["feeds"]),
    ("siteward-view", &["quarantine", "list"]),
    ("siteward-view", &["config", "show"]),
    ("siteward-view", &["audit", "list"]),
    ("siteward-view", &["audit", "verify"]),
    ("siteward-view", &["override", "list"]),
    ("siteward-view", &["secret", "list"]),
    ("siteward-operate", &["feeds", "pause", "--feed", "lab", "--why", "test"]),
    ("siteward-operate", &["feeds", "resume", "--feed", "lab", "--why", "test"]),
    ("siteward-operate", &["feeds", "accept-resend", "--feed", "lab", "--for", "1s"]),
    ("siteward-operate", &["override", "set", "--feed", "lab", "--pause", "--for", "1s", "--reason", "test"]),
    ("siteward-operate", &["secret", "remove", "nothing"]),
    ("siteward-phi", &["quarantine", "show", "00", "--content", "--why", "test"]),
];

/// A member of each group does what its group may, is told which group the rest needs, and the records say who it was.
#[test]
fn each_group_may_do_its_verbs_and_no_other() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: needs root, to be other users");
    }
    let mut scene = Scene::new(mosquitto::Options { persistence: true, packet_bytes_max: 0 }, |configuration| {
        configuration.feeds.push(Feed::new("lab", "normal"));
    });
    let root = scene.directory.path().to_path_buf();
    let access = root.join("access");
    fs::create_dir(&access).expect("a directory");
    for directory in [&root, &access, &scene.site.directory] {
        passable(directory);
    }
    scene.site.configuration.gateway_lines.push(format!("access_directory = {:?}", access.display().to_string()));
    scene.site.write_configuration();
    let groups = root.join("group");
    let lines = GROUPS.map(|(name, gid)| format!("{name}:x:{gid}:\n")).concat();
    fs::write(&groups, fs::read_to_string("/etc/group").expect("the machine's groups") + &lines).expect("written");
    let program = root.join("siteward");
    fs::copy(harness::program("siteward"), &program).expect("copied");
    let mut agent = Command::new("unshare");
    agent.args(["--mount", "sh", "-c", r#"mount --bind "$0" /etc/group && exec "$@""#]).arg(&groups);
    agent.arg(&program).arg("run").arg("--config").arg(scene.site.config_file());
    scene.hub.start();
    scene.site.spawn_with(&mut agent);
    scene.site.listening();
    wait::wait_until("the sockets are there", wait::EVENTUALLY, || access.join("phi.sock").exists());
    for (name, file) in [("siteward-view", "view.sock"), ("siteward-operate", "operate.sock"), ("siteward-phi", "phi.sock")] {
        let metadata = fs::metadata(access.join(file)).expect("a socket");
        let gid = GROUPS.iter().find(|(group, _)| *group == name).map(|(_, gid)| *gid);
        assert_eq!((metadata.permissions().mode() & 0o777, Some(std::os::unix::fs::MetadataExt::gid(&metadata))), (0o660, gid));
    }

    let run = |groups: &str, arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={USER}"), format!("--regid={USER}"), format!("--groups={groups}")]);
        if groups.is_empty() {
            command = Command::new("setpriv");
            command.args([format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".to_owned()]);
        }
        command.arg(&program).args(arguments).arg("--config").arg(scene.site.config_file());
        command.env_remove("SUDO_USER").env("USER", "somebody").output().expect("the program runs")
    };
    let (mut let_through, mut refused) = (0, 0);
    for (need, arguments) in VERBS {
        let nobody = told(&run("", arguments));
        assert!(nobody.contains(&format!("needs the group {need}")), "{arguments:?} without a group: {nobody}");
        for (group, gid) in GROUPS {
            let may = group == need || need == "siteward-view";
            let said = told(&run(&gid.to_string(), arguments));
            assert_eq!(!said.contains("needs the group"), may, "{arguments:?} by {group}: {said}");
            if may {
                let_through += 1;
            } else {
                assert!(said.contains(&format!("needs the group {need}")) && said.contains("adduser"), "{said}");
                refused += 1;
            }
        }
    }
    let counted = flood(|arguments| run(&GROUPS[1].1.to_string(), arguments));
    // Whoever comes by a door and asks for more is refused by the agent too.
    for (door, need) in [("view.sock", "siteward-operate"), ("phi.sock", "siteward-operate")] {
        let answer = ask(&access.join(door), r#"{"do":"pause_feed","feed":"lab","by":"kim","why":"x"}"#);
        assert!(answer.contains(&format!("needs the group {need}")), "{answer}");
    }
    let answer = ask(&access.join("operate.sock"), r#"{"do":"unseal","entry":"00","offset":0,"by":"kim","why":"x"}"#);
    assert!(answer.contains("needs the group siteward-phi"), "{answer}");
    let record = hub_hears(&scene, "pause_feed_done");
    assert_eq!(record["who"], format!("uid {USER} for somebody on site"));
    println!("access: {} verbs, {let_through} let through, {refused} refused; {counted} of a flood of 40", VERBS.len());
}

/// One member cannot fill the log, and whoever has given too many orders still has break-glass; how many of 40 orders were too many.
fn flood(run: impl Fn(&[&str]) -> std::process::Output) -> usize {
    let order = |verb: &str| told(&run(&["feeds", verb, "--feed", "lab", "--why", "a flood"]));
    let counted = (0..40).filter(|n| order(if n % 2 == 0 { "pause" } else { "resume" }).contains("too many orders")).count();
    assert!(counted > 0, "all of a flood was carried out");
    let emergency = run(&["override", "set", "--feed", "lab", "--pause", "--for", "1s", "--reason", "an emergency"]);
    assert!(emergency.status.success(), "{}", told(&emergency));
    counted
}

fn ask(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("the agent answers");
    writeln!(stream, "{request}").expect("it is asked");
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).expect("an answer");
    answer
}

/// I8, I9: over an outage, a kill between intent and outcome and restarts the hub gets every record, in one chain that is whole; a record that was
/// changed is found on the box and at the hub.
#[test]
fn the_chain_is_whole_over_kills_and_outages_and_tampering_is_found() {
    let mut scene = open(|_| {});
    good(&scene, &["feeds", "pause", "--feed", "lab", "--why", "cable moved"]);
    hub_hears(&scene, "pause_feed_done");
    // What cannot be done leaves no record; a document that is refused has failed, and whose it was and which is in its record.
    assert!(!scene.site.command(&["feeds", "pause", "--feed", "nowhere", "--why", "x"]).status.success());
    assert!(!good(&scene, &["audit", "list"]).contains("nowhere"));
    let stick = scene.directory.path().join("stick.dsse");
    fs::write(&stick, "abc").expect("written");
    let output = scene.site.command(&["config", "apply", &stick.display().to_string(), "--why", "a new port"]);
    assert!(!output.status.success(), "{}", told(&output));
    let record = hub_hears(&scene, "config_apply_failed");
    let subject = "SHA-256 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad, 3 bytes";
    assert_eq!(record["subject"], subject, "{record}");
    assert_eq!(hub_hears(&scene, "config_apply")["reason"], "a new port");
    // The WAN goes; what is done is on disk.
    scene.broker.stop();
    good(&scene, &["feeds", "resume", "--feed", "lab", "--why", "cable back"]);
    assert!(good(&scene, &["audit", "list"]).contains("not yet"));
    // Killed between intent and outcome: this order waits for the hub.
    let socket = scene.site.configuration.spool.join("control.sock");
    let mut stream = UnixStream::connect(socket).expect("the agent answers");
    writeln!(stream, r#"{{"do":"retire","reason":"a drill","lost":""}}"#).expect("it is asked");
    let is_written = || fs::read_to_string(segment(&scene)).is_ok_and(|text| text.contains("retirement_announced"));
    wait::wait_until("the intent is on disk", wait::EVENTUALLY, is_written);
    scene.site.kill();
    let verified = good(&scene, &["audit", "verify"]);
    assert!(verified.contains("whole"), "without the agent: {verified}");
    scene.site.spawn();
    scene.site.listening();
    good(&scene, &["feeds", "pause", "--feed", "lab", "--why", "again"]);
    scene.broker.restart();
    let doubt = hub_hears(&scene, "retirement_announced_in_doubt");
    assert_eq!(doubt["of"], hub_hears(&scene, "retirement_announced")["n"]);
    wait::wait_until("all of it is at the hub", wait::EVENTUALLY, || !good(&scene, &["audit", "list"]).contains("not yet"));
    let (here, there) = (good(&scene, &["audit", "verify"]), verify_at_hub(&scene.hub.out()));
    assert!(here.contains("whole") && there.status.success(), "{here}{}", told(&there));
    let records = document::audited(&scene);
    let mut numbers: Vec<u64> = records.iter().filter_map(|record| record["n"].as_u64()).collect();
    let in_order = numbers.is_sorted();
    numbers.dedup();
    assert!(in_order && numbers == (1..=numbers.len() as u64).collect::<Vec<_>>(), "{numbers:?}");

    // Exported and checked elsewhere.
    let export = scene.directory.path().join("export.jsonl");
    good(&scene, &["audit", "export", "--out", &export.display().to_string()]);
    assert_eq!(fs::metadata(&export).expect("a file").permissions().mode() & 0o777, 0o600);
    assert!(verify_at_hub(&export).status.success());
    assert!(good(&scene, &["audit", "list"]).contains("audit_export_done"));

    // A record is changed: in the hub's file, and on the box.
    let copy = scene.directory.path().join("changed.jsonl");
    let text = fs::read_to_string(scene.hub.out()).expect("the hub's output");
    fs::write(&copy, text.replace("cable moved", "cable mowed")).expect("written");
    let found = verify_at_hub(&copy);
    assert!(found.status.code() == Some(3) && told(&found).contains("ALTERED"), "{}", told(&found));
    let without: Vec<&str> = text.lines().filter(|line| !line.contains("cable moved")).collect();
    fs::write(&copy, without.join("\n") + "\n").expect("written");
    let found = verify_at_hub(&copy);
    assert!(found.status.code() == Some(3) && told(&found).contains("MISSING"), "{}", told(&found));
    scene.site.stop();
    let text = String::from_utf8(fs::read(segment(&scene)).expect("the log")).expect("text");
    fs::write(segment(&scene), text.replace("cable moved", "cable mowed")).expect("written");
    let found = scene.site.command(&["audit", "verify"]);
    assert!(found.status.code() == Some(3) && told(&found).contains("ALTERED"), "{}", told(&found));
    scene.site.spawn(); // one of its feeds is paused
    scene.site.condition("audit_incomplete", wait::EVENTUALLY);
    hub_hears(&scene, "audit_damaged");
    println!("access: {} records in one chain, over an outage and a kill", numbers.len());
}

/// A log that cannot be written refuses what asks for a record, and never break-glass; what was done meanwhile is written when it can be.
#[test]
fn without_a_record_nothing_is_done_but_break_glass() {
    let mut scene = open(|_| {});
    scene.site.stop();
    let audit = scene.site.configuration.spool.join("audit");
    let aside = audit.with_extension("aside");
    fs::rename(&audit, &aside).expect("moved");
    fs::write(&audit, "in the way").expect("written");
    scene.site.start();
    scene.site.condition("audit_write_failed", wait::EVENTUALLY);
    let output = scene.site.command(&["feeds", "pause", "--feed", "lab", "--why", "test"]);
    assert!(!output.status.success() && told(&output).contains("nothing was done, since the audit record"), "{}", told(&output));
    good(&scene, &["override", "set", "--feed", "lab", "--pause", "--for", "1h", "--reason", "the vendor is at work"]);
    fs::remove_file(&audit).expect("removed");
    fs::rename(&aside, &audit).expect("moved back");
    let record = hub_hears(&scene, "override_set");
    assert_eq!((record["subject"].as_str(), record["reason"].as_str()), (Some("lab pause 3600 s"), Some("the vendor is at work")));
    hub_hears(&scene, "override_set_done");
    wait::wait_until("the condition goes", wait::EVENTUALLY, || !scene.site.conditions().iter().any(|code| code == "audit_write_failed"));
    connected(&scene);
    assert!(verify_at_hub(&scene.hub.out()).status.success());
    println!("access: without a record an order is refused, an override is done and recorded later");
}

/// I7: content is shown to whoever may see it and asks with a reason, as it was captured; no record, log or status holds any of it.
#[test]
fn content_is_shown_on_request_and_the_record_of_it_holds_none() {
    let scene = open_with(mosquitto::Options { persistence: true, packet_bytes_max: 20_000 }, |_| {});
    let sent = message::build(0, 1, 40_000);
    assert!(scene.site.wire().exchange(&sent).expect("an answer").positive());
    let entry = wait::wait_for("an entry in quarantine", wait::EVENTUALLY, || {
        let output = scene.site.command(&["quarantine", "list", "--json"]);
        let list: Value = serde_json::from_slice(&output.stdout).ok()?;
        list["entries"][0]["id"].as_str().map(str::to_owned)
    });
    let shown = good(&scene, &["quarantine", "show", &entry]);
    assert!(shown.contains(&entry) && !shown.contains("CANARY"), "{shown}");
    assert!(!scene.site.command(&["quarantine", "show", &entry, "--content"]).status.success(), "a reason has to be given");
    let bytes = scene.site.command(&["quarantine", "show", &entry, "--content", "--why", "the code is wrong"]).stdout;
    assert_eq!(bytes.len(), sent.len());
    assert!(canary::contains(&bytes, CANARIES[0].as_bytes()));
    let out = scene.directory.path().join("entry.hl7");
    let path = out.display().to_string();
    good(&scene, &["quarantine", "show", &entry, "--content", "--why", "the code is wrong", "--out", &path]);
    assert_eq!((fs::read(&out).expect("a file") == bytes, fs::metadata(&out).expect("a file").permissions().mode() & 0o777), (true, 0o600));
    let record = hub_hears(&scene, "unseal_done");
    assert_eq!(record["subject"], entry.as_str());
    assert_eq!(record["reason"], format!("{0} of {0} bytes were shown", sent.len()), "how much, and not what");
    assert_eq!(hub_hears(&scene, "unseal")["reason"], "the code is wrong");
    fs::remove_file(out).expect("removed");
    // Neither here nor at the hub, which keeps the records.
    let mut found = canary::find(&scene.site.directory, &CANARIES);
    let records = document::audited(&scene).iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    let kept = scene.directory.path().join("records");
    fs::write(&kept, records).expect("written");
    found.extend(canary::find_in_file(&kept, &CANARIES).into_iter().map(|canary| (kept.clone(), canary)));
    assert!(found.is_empty(), "{found:?}");
    println!("access: {} bytes shown, none of them recorded", bytes.len());
}

/// Everything in an archive of `diagnose`, as files.
fn archive(scene: &Scene, name: &str) -> PathBuf {
    let path = scene.directory.path().join(format!("{name}.tar"));
    good(scene, &["diagnose", "--out", &path.display().to_string()]);
    assert_eq!(fs::metadata(&path).expect("an archive").permissions().mode() & 0o777, 0o600);
    let into = scene.directory.path().join(name);
    fs::create_dir(&into).expect("a directory");
    let tar = Command::new("tar").arg("-xf").arg(&path).arg("-C").arg(&into).output().expect("tar runs");
    assert!(tar.status.success(), "{}", told(&tar));
    let sums = Command::new("sha256sum").args(["--quiet", "-c", "siteward-diagnose/MANIFEST"]).current_dir(&into).output();
    assert!(sums.expect("sha256sum runs").status.success(), "the manifest fits");
    into.join("siteward-diagnose")
}

/// I7: the archive has what is needed, with the agent running and without, and in no file anything of a message or a secret.
#[test]
fn an_archive_for_diagnosis_holds_no_content_and_no_secret() {
    let mut scene = open(|_| {});
    let mut wire = scene.site.wire();
    for number in 1..=20 {
        assert!(wire.exchange(&message::build(0, number, 700)).expect("an answer").positive());
    }
    scene.hub.wait_for_events(20);
    good(&scene, &["feeds", "pause", "--feed", "lab", "--why", "test"]);
    let mut set = Command::new(harness::program("siteward"));
    set.args(["secret", "set", "lab-key", "--config"]).arg(scene.site.config_file());
    let mut set = set.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().expect("the program runs");
    set.stdin.take().expect("piped").write_all(b"SECRET-VALUE-4711").expect("written");
    assert!(set.wait().expect("it ends").success());
    let key = fs::read_to_string(&scene.identity("somebody").key).expect("a key");
    let of_uplink = fs::read_dir(scene.directory.path().join("pki")).expect("certificates").flatten();
    let keys: Vec<String> = of_uplink
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .filter(|text| text.contains("PRIVATE KEY"))
        .chain([key])
        .filter_map(|pem| pem.lines().find(|line| !line.starts_with('-')).map(str::to_owned))
        .collect();
    let mut needles: Vec<&str> =
        CANARIES.into_iter().chain(["ZEBRAFINCH", "MRN-4711", "19700101", "SECRET-VALUE", "PRIVATE KEY"]).collect();
    needles.extend(keys.iter().map(String::as_str));

    let with = archive(&scene, "with-agent");
    scene.site.stop();
    std::thread::sleep(Duration::from_millis(10));
    let without = archive(&scene, "without-agent");
    for (directory, more) in [(&with, vec!["status.json", "log.txt", "feeds.json"]), (&without, Vec::new())] {
        let files = ["MANIFEST", "version.txt", "config.txt", "spool.txt", "mounts.txt", "audit.jsonl", "audit-verify.txt", "missing.txt"];
        for name in files.into_iter().chain(more) {
            assert!(
                fs::metadata(directory.join(name)).is_ok_and(|metadata| metadata.len() > 0),
                "{name} is not in {}",
                directory.display()
            );
        }
        let found = canary::find(directory, &needles);
        assert!(found.is_empty(), "{found:?}");
        let verified = fs::read_to_string(directory.join("audit-verify.txt")).expect("text");
        assert!(verified.contains("whole"), "{verified}");
    }
    let status: Value = serde_json::from_slice(&fs::read(with.join("status.json")).expect("a status")).expect("JSON");
    assert_eq!(status["gateway"], "st-marys-gw1");
    let missing = fs::read_to_string(without.join("missing.txt")).expect("text");
    assert!(missing.contains("status.json: no agent is running here"), "{missing}");
    println!("access: {} files in an archive, {} without the agent, {} needles in none", count(&with), count(&without), needles.len());
}

fn count(directory: &Path) -> usize {
    fs::read_dir(directory).expect("a directory").count()
}
