//! Secrets: a document names them, the gateway has them, and nothing ever shows them (I7).

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use harness::http::{HttpFeed, connect};
use harness::message;
use harness::scene::Scene;
use harness::tls::Client;
use harness::{canary, document, mosquitto, net, wait};
use sha2::{Digest as _, Sha256};

fn open() -> Scene {
    let mut scene = Scene::new(mosquitto::Options { persistence: true, packet_bytes_max: 0 }, |configuration| {
        configuration.sections.push(document::trust());
    });
    scene.start();
    wait::wait_until("the uplink is up", wait::EVENTUALLY, || scene.site.status()["uplink"]["state"] == "connected");
    scene
}

fn fed(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
    child.stdin.take().expect("piped").write_all(input).expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn siteward(scene: &Scene, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(harness::program("siteward"));
    command.args(arguments).arg("--config").arg(scene.site.config_file());
    fed(command, input)
}

fn good(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The feed that was there before every document.
fn own(scene: &Scene) -> String {
    mllp("or-usage", scene.site.configuration.feeds[0].port, "")
}

fn mllp(id: &str, port: u16, more: &str) -> String {
    format!(
        "[[feed]]\nid = {id:?}\nstage = \"live\"\nforward = \"raw\"\nphi = \"allowed\"\n[feed.mllp]\nlisten = \"127.0.0.1:{port}\"\n{more}\n"
    )
}

/// The middle of a private key: nobody writes that by chance.
fn needle(key: &Path) -> (Vec<u8>, String) {
    let pem = fs::read_to_string(key).expect("a key");
    let line = pem.lines().nth(1).expect("a key has lines").to_owned();
    (pem.into_bytes(), line)
}

/// I7: a secret set on site is used, survives a kill, is replaced under a running listener, and is in no file, log, status or report.
#[test]
fn a_document_names_a_secret_that_was_set_on_site() {
    let mut scene = open();
    let server = scene.pki.server();
    let (pem, line) = needle(&server.key);
    let port = net::free_port();
    let tls = format!("[feed.mllp.tls]\ncert = \"{}\"\ncredential = \"lab-key\"", server.cert.display());
    let body = format!("{}{}", own(&scene), mllp("lab", port, &tls));

    let tried = document::becomes(&scene, 1, &body, "refused");
    let why = tried["reason"].as_str().unwrap_or_default();
    for part in ["document-1.toml:", "feed[1].mllp.tls.credential", "feed `lab`", "siteward secret set lab-key"] {
        assert!(why.contains(part), "{why}");
    }
    assert!(good(&siteward(&scene, &["secret", "set", "lab-key"], &pem)).contains("lab-key is set"));
    document::becomes(&scene, 2, &body, "committed");
    let client = Client::new(&scene.pki.ca, None);
    let send = |number| {
        let mut wire = client.connect(net::loopback(port), wait::SOON).expect("the listener has its key");
        assert!(wire.exchange(&message::build(0, number, 700)).expect("an answer").positive());
    };
    send(1);
    scene.site.kill();

    // With the agent stopped the commands work on the spool themselves.
    let told = good(&siteward(&scene, &["secret", "list"], b""));
    assert!(told.contains("lab-key") && !told.contains(&line), "{told}");
    good(&siteward(&scene, &["secret", "set", "other"], line.as_bytes()));
    let key = good(&siteward(&scene, &["secret", "key"], b""));
    scene.site.start();
    wait::wait_until("the listener is there again", wait::EVENTUALLY, || net::listening(net::loopback(port)));
    send(2);
    assert_eq!(good(&siteward(&scene, &["secret", "key"], b"")), key);
    let listed = good(&siteward(&scene, &["secret", "list", "--json"], b""));
    assert!(listed.contains("\"other\"") && listed.contains("lab-key"), "{listed}");
    good(&siteward(&scene, &["secret", "remove", "other"], b""));
    let output = siteward(&scene, &["secret", "remove", "other"], b"");
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("secret list"));

    wait::wait_until("the hub has the audit", wait::EVENTUALLY, || {
        ["secret_set", "secret_removed"].iter().all(|what| document::audited(&scene).iter().any(|line| line["what"] == *what))
    });
    let audited = document::audited(&scene);
    assert!(
        audited.iter().any(|line| line["subject"] == "lab-key" && line["who"].as_str().is_some_and(|who| who.contains("uid "))),
        "{audited:?}"
    );
    wait::wait_until("the key is reported", wait::EVENTUALLY, || document::reported(&scene)["secret_key"] == key.trim());
    let shown = good(&scene.site.command(&["config", "show"])) + &scene.site.status().to_string() + &document::reported(&scene).to_string();
    assert!(shown.contains("credential:lab-key") && !shown.contains(&line));
    for directory in [&scene.site.directory, &scene.directory.path().join("hub")] {
        assert_eq!(canary::find(directory, &[&line]), [], "the key lies in the clear");
    }
}

/// I7: a value sealed at the desk for this gateway goes with the document, is tried and rolled back with it, and opens nowhere else.
#[test]
fn a_document_carries_a_secret_sealed_to_this_gateway() {
    const TOKEN: &str = "synthetic-token-7f3a";
    let scene = open();
    let lines =
        |token: &str| format!("lab:{}\n", Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat());
    let seal = |key: &str, input: &str| {
        let mut command = Command::new(harness::program("siteward-hub"));
        command.args(["secret", "seal", "--name", "lab-tokens", "--key", key]);
        good(&fed(command, input.as_bytes()))
    };
    let key = good(&siteward(&scene, &["secret", "key"], b""));
    let feed = HttpFeed::new("lab");
    let section = feed.section("tokens_credential = \"lab-tokens\"");
    let post = |token: &str| {
        let mut stream = connect(feed.addr()).expect("the feed listens");
        let head = format!(
            "POST /feeds/lab HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        stream.write_all(head.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };

    let foreign = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    let tried = document::becomes(&scene, 1, &format!("{}{section}{}", own(&scene), seal(foreign, &lines(TOKEN))), "refused");
    let why = tried["reason"].as_str().unwrap_or_default();
    assert!(why.contains("feed[1].http.tokens_credential") && why.contains("seal it again"), "{why}");

    document::becomes(&scene, 2, &format!("{}{section}{}", own(&scene), seal(key.trim(), &lines(TOKEN))), "committed");
    assert_eq!((post(TOKEN).as_str(), post("another").as_str()), ("202", "401"));
    // Another value is another document: the feed follows it.
    document::becomes(&scene, 3, &format!("{}{section}{}", own(&scene), seal(key.trim(), &lines("another"))), "committed");
    assert_eq!((post(TOKEN).as_str(), post("another").as_str()), ("401", "202"));
    good(&scene.site.command(&["config", "rollback", "--why", "the lab is not ready"]));
    wait::wait_until("the tokens from before count", wait::EVENTUALLY, || post(TOKEN) == "202");
    assert!(good(&scene.site.command(&["config", "show"])).contains("sealed:lab-tokens"));
    let hash = lines(TOKEN);
    assert_eq!(canary::find(&scene.site.directory, &[hash.trim(), TOKEN]), []);
}

/// What the gateway would say of a document is said on site before it is offered.
#[test]
fn a_document_is_checked_on_site_as_the_agent_would() {
    let scene = open();
    let check = |file: &Path| scene.site.command(&["check", "--without-files", "--document", &file.display().to_string()]);
    let fixtures = harness::repository().join("tests/fixtures/documents");
    let mut checked = 0;
    for entry in fs::read_dir(fixtures.join("bad")).expect("the fixtures").flatten() {
        let file = entry.path();
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        // Groups, version and revision of the fixtures' gateway are not those of this one, nor is its noon ours; nor who signs.
        let other = ["revision-too-old", "other-", "agent-too-old", "expired", "not-before", "bootstrap-section-by-the-usual-keys"];
        if other.iter().any(|other| name.starts_with(other)) || file.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let expected = fs::read_to_string(file.with_extension("expected")).expect("its sentence");
        let (_, expected) = expected.split_once('\n').expect("a code and a sentence");
        let output = check(&file);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{name}: {told}");
        let without_name = |text: &str| -> Vec<String> {
            let here = format!("{}:", file.display());
            text.trim()
                .lines()
                .map(|line| {
                    line.replacen(&here, "", 1).replacen("document-42.toml:", "", 1).replacen("document.toml:", "", 1).trim().to_owned()
                })
                .collect()
        };
        assert_eq!(without_name(&told), without_name(expected), "{name}");
        checked += 1;
    }
    assert!(checked > 60, "{checked}");

    let signed = document::signed(&scene, 7, &own(&scene));
    let file = scene.directory.path().join("good.dsse");
    fs::write(&file, &signed).expect("the stick takes it");
    let told = good(&check(&file));
    assert!(told.contains("revision 7") && told.contains(" signed") && told.contains("1 feed"), "{told}");
    let changed = signed.replacen("\"payload\":\"W", "\"payload\":\"X", 1);
    assert_ne!(changed, signed);
    fs::write(&file, changed).expect("the stick takes it");
    let output = check(&file);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("changed after signing"), "{}", String::from_utf8_lossy(&output.stderr));
    document::becomes(&scene, 8, &own(&scene), "committed");
    let spool = scene.site.configuration.spool.display().to_string();
    fs::write(&file, &signed).expect("the stick takes it");
    let output = scene.site.command(&["check", "--document", &file.display().to_string(), "--spool", &spool]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("7 is older than 8"), "{}", String::from_utf8_lossy(&output.stderr));
}
