//! Break-glass: a feed is changed on site for a while, over kills, told to the hub, and is as configured again by itself.

use std::process::Output;
use std::time::Duration;

use harness::message;
use harness::scene::Scene;
use harness::sender::{Wire, send_one};
use harness::site::Feed;
use harness::{document, mosquitto, net, wait};

fn open() -> Scene {
    let mut scene = Scene::new(mosquitto::Options { persistence: true, packet_bytes_max: 0 }, |configuration| {
        configuration.feeds.push(Feed::new("lab", "normal"));
        configuration.sections.push(document::trust());
    });
    scene.start();
    wait::wait_until("the uplink is up", wait::EVENTUALLY, || scene.site.status()["uplink"]["state"] == "connected");
    scene
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn good(scene: &Scene, arguments: &[&str]) -> String {
    let output = scene.site.command(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", told(&output));
    told(&output)
}

fn refused(scene: &Scene, arguments: &[&str]) -> String {
    let output = scene.site.command(arguments);
    assert!(!output.status.success(), "{arguments:?} is carried out: {}", told(&output));
    told(&output)
}

fn takes(port: u16, number: u64) -> bool {
    send_one(net::loopback(port), &message::build(0, number, 700), Duration::from_secs(5)).is_ok_and(|reply| reply.positive())
}

fn active(scene: &Scene) -> bool {
    scene.site.conditions().iter().any(|code| code == "override_active")
}

/// I10: another port counts at once, over a kill, is reported and audited, and ends by itself when the time that was asked has run.
#[test]
fn a_port_is_changed_for_a_while_over_a_kill_and_ends_by_itself() {
    let mut scene = open();
    let (usual, lab, other) = (scene.site.configuration.feeds[0].port, scene.site.configuration.feeds[1].port, net::free_port());
    assert!(takes(usual, 1));
    let port = other.to_string();
    let set = ["override", "set", "--feed", "or-usage", "--port", &port, "--for", "20s", "--reason", "the vendor moved"];
    assert!(good(&scene, &set).contains(&format!("listens on port {other}")));
    assert!(takes(other, 2) && !net::listening(net::loopback(usual)));
    assert!(takes(lab, 3), "the others are not touched");
    assert!(active(&scene));
    wait::wait_until("the hub is told", wait::EVENTUALLY, || {
        let one = &document::reported(&scene)["overrides"][0];
        one["feed"] == "or-usage"
            && one["change"] == "port"
            && one["value"] == port
            && one["who"].as_str().is_some_and(|who| who.contains("uid"))
    });
    scene.site.kill();
    scene.site.spawn();
    wait::wait_until("the override holds after a kill", wait::EVENTUALLY, || net::listening(net::loopback(other)));
    assert!(takes(other, 4) && active(&scene));
    let listed = good(&scene, &["override", "list"]);
    assert!(listed.contains("or-usage") && listed.contains("the vendor moved"), "{listed}");
    assert!(good(&scene, &["config", "show"]).contains("# overridden: feed or-usage: it listens on port"));
    wait::wait_until("the usual port counts again", wait::EVENTUALLY, || net::listening(net::loopback(usual)));
    assert!(takes(usual, 5) && !net::listening(net::loopback(other)));
    wait::wait_until("nothing is overridden any more", wait::EVENTUALLY, || {
        !active(&scene) && document::reported(&scene)["overrides"].as_array().is_some_and(Vec::is_empty)
    });
    wait::wait_until("the hub has the audit", wait::EVENTUALLY, || {
        let audited = document::audited(&scene);
        ["override_set", "override_ended"].iter().all(|what| audited.iter().any(|line| line["what"] == *what))
    });
    let subjects: Vec<String> =
        document::audited(&scene).iter().map(|line| line["subject"].as_str().unwrap_or_default().to_owned()).collect();
    assert!(subjects.contains(&format!("or-usage port {port}")), "{subjects:?}");
}

/// Peers and pause, cleared by hand; what cannot be had changes nothing and is said.
#[test]
fn peers_and_pause_hold_until_they_are_cleared_and_what_cannot_be_had_is_refused() {
    let scene = open();
    let (usual, lab) = (scene.site.configuration.feeds[0].port, scene.site.configuration.feeds[1].port);
    let set = |feed: &str, more: &[&str]| {
        [&["override", "set", "--feed", feed, "--reason", "test", "--for", "4h"], more]
            .concat()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let run = |arguments: &[String]| scene.site.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(run(&set("or-usage", &["--peers", "10.9.9.0/24,192.0.2.7"])).status.success());
    assert!(!takes(usual, 1), "this sender is none of them");
    assert!(run(&set("lab", &["--pause"])).status.success());
    assert!(!net::listening(net::loopback(lab)));
    assert_eq!(
        scene.site.status()["conditions"].as_array().map(|all| all.iter().filter(|c| c["code"] == "override_active").count()),
        Some(2)
    );
    good(&scene, &["override", "clear", "--feed", "or-usage", "--only", "peers"]);
    assert!(takes(usual, 1));
    good(&scene, &["override", "clear", "--feed", "lab"]);
    assert!(takes(lab, 2) && !active(&scene));

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let busy = taken.local_addr().expect("bound").port().to_string();
    let used = lab.to_string();
    let kept = Wire::connect(net::loopback(usual), wait::SOON).expect("a connection");
    for (arguments, part) in [
        (set("or-usage", &["--port", &busy]), "as it was"),
        (set("or-usage", &["--port", &used]), "feed `lab` listens there"),
        (set("or-usage", &["--peers", "nonsense"]), "entry 1 of the peers is not an address"),
        (set("nobody", &["--pause"]), "no feed `nobody`"),
    ] {
        let output = run(&arguments);
        assert!(!output.status.success() && told(&output).contains(part), "{arguments:?}: {}", told(&output));
    }
    let long = refused(&scene, &["override", "set", "--feed", "lab", "--pause", "--for", "25h", "--reason", "test"]);
    assert!(long.contains("up to 24 hours"), "{long}");
    assert!(refused(&scene, &["override", "set", "--feed", "lab", "--pause", "--for", "1h", "--reason", " "]).contains("say why"));
    assert!(refused(&scene, &["override", "clear", "--feed", "lab"]).contains("override list"));
    assert!(takes(usual, 3) && !active(&scene));
    drop(kept);
    wait::wait_until("the hub has the audit", wait::EVENTUALLY, || {
        document::audited(&scene).iter().filter(|line| line["what"] == "override_cleared_done").count() == 2
    });
}

/// A document that comes meanwhile is tried under the override; one that takes the feed away ends it, and says so.
#[test]
fn an_override_stays_on_top_of_a_rollout_until_its_feed_is_gone() {
    let mut scene = open();
    let (usual, lab, other) = (scene.site.configuration.feeds[0].port, scene.site.configuration.feeds[1].port, net::free_port());
    good(&scene, &["override", "set", "--feed", "lab", "--port", &other.to_string(), "--for", "4h", "--reason", "test"]);
    let feed = |id: &str, port: u16| {
        format!(
            "[[feed]]\nid = {id:?}\nforward = \"raw\"\nphi = \"allowed\"\n[feed.mllp]\nlisten = \"127.0.0.1:{port}\"\nframe_timeout = \"20s\"\n"
        )
    };
    let both = format!("{}{}", feed("or-usage", usual), feed("lab", lab));
    document::becomes(&scene, 1, &both, "committed");
    assert!(takes(other, 1) && !net::listening(net::loopback(lab)));
    scene.site.stop();
    scene.site.spawn();
    wait::wait_until("the override holds after a stop", wait::EVENTUALLY, || net::listening(net::loopback(other)));
    assert_eq!(document::becomes(&scene, 2, &feed("or-usage", usual), "committed")["code"], serde_json::Value::Null);
    wait::wait_until("the override ended with its feed", wait::EVENTUALLY, || !active(&scene));
    wait::wait_until("the hub has the audit", wait::EVENTUALLY, || {
        document::audited(&scene).iter().any(|line| line["what"] == "override_ended" && line["reason"] == "there is no such feed any more")
    });
    document::becomes(&scene, 3, &both, "committed");
    assert!(takes(lab, 2) && !net::listening(net::loopback(other)));
}
