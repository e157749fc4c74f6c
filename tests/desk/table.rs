//! A template and a table become documents that gateways take; other signing keys come in and old ones go, as the runbook says.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use harness::document::keys;
use harness::mosquitto::Options;
use harness::wait;

use super::east::{East, report, states, text};

fn utf8(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A new Ed25519 pair: private and public file.
fn pair(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
    std::fs::create_dir_all(directory).expect("a directory");
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let (private, public) = (directory.join(format!("{name}.key")), directory.join(format!("{name}.pub")));
    std::fs::write(&private, pair.serialize_pem()).expect("it is written");
    std::fs::write(&public, pair.public_key_pem()).expect("it is written");
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o600)).expect("its mode is set");
    (private, public)
}

fn good(output: &Output) {
    assert!(output.status.success(), "{}", text(output));
}

const TEMPLATE: &str = r#"
[document]
schema_version = 1
revision = @REVISION@
gateway = "{{ gateway }}"
author = "kim"
reason = "the lab of {{ site }}"
[rollout]
trial = "10s"
confirm = "bound"
[[feed]]
id = "or-usage"
forward = "raw"
phi = "allowed"
owner = "{{ owner }}"
[feed.mllp]
listen = "127.0.0.1:{{ port }}"
"#;

/// Before it is published, by what the gateways report.
fn another_document_of_a_revision_is_refused(east: &East, running: &Path, other: &Path) {
    good(&east.at_broker(&["config", "lint", utf8(running)])); // the same document again changes nothing
    std::fs::write(other, std::fs::read_to_string(running).expect("text").replace("the lab", "a lab")).expect("a copy");
    let refused = east.at_broker(&["config", "lint", utf8(other)]);
    assert!(text(&refused).contains("the gateway runs another document of revision 1"), "{}", text(&refused));
    assert_eq!(refused.status.code(), Some(78));
}

/// I6: the way of the runbook: template, table, lint against what gateways report, signatures, rollout; then new keys in, proven, old ones out.
#[test]
fn from_a_table_to_running_gateways_and_from_the_old_key_to_the_new() {
    let elsewhere = harness::scene::Directory::new();
    let at = |name: &str| elsewhere.path().join(name);
    let (recovery, recovery_public) = pair(elsewhere.path(), "recovery");
    let (desk2, desk2_public) = pair(elsewhere.path(), "desk-2");
    let (desk1, desk1_public) = (keys().join("openssl.key"), keys().join("openssl.pub"));
    let trust = format!("[trust]\nkeys = [{:?}]\nrecovery_keys = [{:?}]\n", utf8(&desk1_public), utf8(&recovery_public));
    let east = East::trusting(2, Options::default(), &trust);
    let ports: Vec<u16> = east.sites.iter().map(|site| site.configuration.feeds[0].port).collect();
    let table = at("sites.csv");
    let hostile = "\"Kim \"\"]]\"\" {{ site }}\"";
    std::fs::write(&table, format!("site,gateway,port,owner\nst-marys,gw1,{},{hostile}\nst-marys,gw2,{},desk\n", ports[0], ports[1]))
        .expect("a table");

    // A round of a document: rendered, signed by this key, rolled out to both.
    let round = |revision: u64, section: &str, key: &Path| -> Output {
        let (template, out, signed) = (at(&format!("{revision}.toml")), at(&format!("next-{revision}")), at(&format!("signed-{revision}")));
        std::fs::create_dir_all(&signed).expect("a directory");
        std::fs::write(&template, format!("{}{section}", TEMPLATE.replace("@REVISION@", &revision.to_string()))).expect("a template");
        let before = at(&format!("next-{}", revision - 1));
        let mut render = vec!["config", "render", utf8(&template), "--table", utf8(&table), "--out", utf8(&out)];
        if before.exists() {
            render.extend(["--against", utf8(&before)]);
        }
        good(&East::tool(&render));
        let files = ["gw1.toml", "gw2.toml"].map(|name| out.join(name));
        good(&East::tool(&["config", "sign", utf8(&files[0]), utf8(&files[1]), "--key", utf8(key), "--out", utf8(&signed)]));
        let linted = east.at_broker(&["config", "lint", utf8(&files[0])]);
        good(&linted);
        east.rollout("start", &["--documents", utf8(&signed), "--now", "--json"]).output().expect("it runs")
    };
    let trusts = |files: &[&Path]| {
        let mut arguments = vec!["config", "status", "--json"];
        for file in files {
            arguments.extend(["--trusts", utf8(file)]);
        }
        let output = east.at_broker(&arguments);
        good(&output);
        let all: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        all.as_array().expect("a list").iter().filter(|gateway| gateway["trust_as_wanted"] == true).count()
    };

    let all_trust = |files: &[&Path]| wait::wait_until("every gateway reports these keys", wait::SOON, || trusts(files) == 2);

    let done = round(1, "", &desk1);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    all_trust(&[&desk1_public]);
    let shown = String::from_utf8_lossy(&east.sites[0].command(&["status", "--json"]).stdout).into_owned();
    assert!(shown.contains(r#"Kim \"]]\" {{ site }}"#), "a hostile value is a value: {shown}");

    another_document_of_a_revision_is_refused(&east, &at("next-1/gw1.toml"), &at("other.toml"));

    // Step 2 of the runbook: add.
    let section = at("bootstrap.toml");
    let (old, added, held) = (utf8(&desk1_public), utf8(&desk2_public), utf8(&recovery_public));
    good(&East::tool(&["keys", "rotate", "--old", old, "--add", added, "--recovery", held, "--out", utf8(&section)]));
    let both = std::fs::read_to_string(&section).expect("a section");
    let refused = round(2, &both, &desk1);
    assert_eq!(refused.status.code(), Some(3), "the old key alone changes no keys: {}", text(&refused));
    assert!(text(&refused).contains("only the recovery keys may"), "{}", text(&refused));
    let done = round(3, &both, &recovery);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    all_trust(&[&desk1_public, &desk2_public]);
    // Step 5: the new one signs.
    let done = round(4, &both, &desk2);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    // Step 6: the old one goes.
    let running = at("next-4/gw1.toml");
    good(&East::tool(&["keys", "rotate", "--document", utf8(&running), "--remove", utf8(&desk1_public), "--out", utf8(&section)]));
    let alone = std::fs::read_to_string(&section).expect("a section");
    let done = round(5, &alone, &recovery);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    all_trust(&[&desk2_public]);
    assert_eq!(trusts(&[&desk1_public, &desk2_public]), 0);
    let late = round(6, &alone, &desk1);
    assert!(text(&late).contains("signatures it asks for are by keys that it reports to trust"), "{}", text(&late));
    let found = states(&report(&done));
    println!("desk: five rounds from a table to {} gateways, keys rotated in three, confirmed by reported ids", found.len());
}
