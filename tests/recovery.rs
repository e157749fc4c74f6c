//! Endpoints and trust anchors change by a document of the recovery keys, through trial, proof and rollback, and by nothing else (I6).

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use harness::link::{Link, Weather};
use harness::scene::Scene;
use harness::{document, message, mosquitto, net, sender, wait};

/// A new Ed25519 pair in this directory: private and public file, and the public key.
fn pair(directory: &Path, name: &str) -> (PathBuf, PathBuf, String) {
    std::fs::create_dir_all(directory).expect("a directory");
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let (private, public) = (directory.join(format!("{name}.key")), directory.join(format!("{name}.pub")));
    std::fs::write(&private, pair.serialize_pem()).expect("it is written");
    std::fs::write(&public, pair.public_key_pem()).expect("it is written");
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o600)).expect("its mode is set");
    (private, public, pair.public_key_pem())
}

/// I6: only the recovery keys move a gateway to another hub and other signing keys; an endpoint that does not work is taken back; what works stays
/// over a kill, with the old endpoint gone.
#[test]
fn the_recovery_keys_and_nobody_else_move_a_gateway() {
    let elsewhere = harness::scene::Directory::new();
    let (recovery, recovery_public, _) = pair(elsewhere.path(), "recovery");
    let (desk, _, desk_public) = pair(elsewhere.path(), "desk-2");
    let mut scene = Scene::new(mosquitto::Options { persistence: true, packet_bytes_max: 0 }, |configuration| {
        let keys = document::keys().join("openssl.pub");
        let trust = format!("[trust]\nkeys = [\"{}\"]\nrecovery_keys = [\"{}\"]\n", keys.display(), recovery_public.display());
        configuration.sections.push(trust);
    });
    scene.start();
    wait::wait_until("the uplink is up", wait::EVENTUALLY, || scene.site.status()["uplink"]["state"] == "connected");
    let other = Link::start(scene.broker.tls());
    let own = scene.site.configuration.feeds[0].port;
    let feeds = format!(
        "[[feed]]\nid = \"or-usage\"\nstage = \"live\"\nforward = \"raw\"\nphi = \"allowed\"\n[feed.mllp]\nlisten = \"127.0.0.1:{own}\"\n"
    );
    let ca = std::fs::read_to_string(&scene.pki.ca).expect("the CA");
    let section = |port: u16| {
        format!("[bootstrap]\nendpoints = [\"mqtts://127.0.0.1:{port}\"]\nca_pem = '''\n{ca}'''\nkeys = ['''\n{desk_public}''']\n{feeds}")
    };
    let moved = section(other.port());
    let offered = |scene: &Scene, revision, body: &str, key: &Path, state| {
        let envelope = document::signed_by(scene, revision, body, key);
        document::offered(scene, revision, &envelope, state)
    };
    let usual = document::keys().join("openssl.key");

    let tried = offered(&scene, 1, &moved, &usual, "refused");
    assert_eq!(tried["code"], "bootstrap_key", "{tried}");
    assert!(tried["reason"].as_str().unwrap_or_default().contains("only the recovery keys may"), "{tried}");

    offered(&scene, 2, &section(net::free_port()), &recovery, "rolled_back");
    wait::wait_until("the old endpoint serves", wait::EVENTUALLY, || scene.site.status()["uplink"]["state"] == "connected");
    assert!(!scene.site.conditions().iter().any(|code| code == "bootstrap_moved"));

    offered(&scene, 3, &moved, &recovery, "committed");
    scene.site.condition("bootstrap_moved", wait::EVENTUALLY);
    scene.link.set(Weather::Down);
    let there = format!("mqtts://127.0.0.1:{}", other.port());
    let connected = |scene: &Scene| {
        scene.site.try_status().is_some_and(|status| status["uplink"]["state"] == "connected" && status["uplink"]["endpoint"] == there)
    };
    wait::wait_until("the new endpoint serves", wait::EVENTUALLY, || connected(&scene));
    let shown = String::from_utf8_lossy(&scene.site.command(&["config", "show"]).stdout).into_owned();
    assert!(
        shown.contains(&format!("endpoints = [\"{there}\"]")) && shown.contains("come from a document of the recovery keys"),
        "{shown}"
    );

    document::push(scene.broker.plain(), &document::signed_by(&scene, 4, &moved, &usual));
    wait::wait_until("the old keys sign nothing any more", wait::EVENTUALLY, || {
        document::reported(&scene)["tried"]["code"] == "unknown_key"
    });
    let tried = offered(&scene, 5, &feeds, &desk, "refused");
    assert!(tried["reason"].as_str().unwrap_or_default().contains("word for word"), "{tried}");
    offered(&scene, 6, &moved, &desk, "committed");

    scene.site.kill();
    scene.site.start();
    wait::wait_until("the new endpoint serves after a kill", wait::EVENTUALLY, || connected(&scene));
    assert_eq!(scene.site.status()["config"]["revision"], 6);
    let conditions = scene.site.conditions();
    assert!(conditions.iter().any(|c| c == "bootstrap_moved") && !conditions.iter().any(|c| c == "config_unverified"), "{conditions:?}");
    let reply = sender::send_one(net::loopback(own), &message::build(0, 1, 700), wait::SOON).expect("an answer");
    assert!(reply.positive());
    scene.hub.wait_for_events(1);
}
