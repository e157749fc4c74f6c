//! How boxes become gateways, are replaced and are retired, with the desk's own authority and a real Mosquitto that knows its clients from nothing but
//! the files that the desk makes.

#[path = "enrolment/anew.rs"]
mod anew;
#[path = "enrolment/proxy.rs"]
mod proxy;
#[path = "enrolment/reload.rs"]
mod reload;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use harness::enrolment::{Box_, Desk, fingerprint};
use harness::sender::Wire;
use harness::{message, net, wait};

const GATEWAY: &str = "st-marys-gw1";

fn send(port: u16, number: u64) {
    let mut wire = wait::wait_for("a connection to the feed", wait::SOON, || Wire::connect(net::loopback(port), wait::SOON).ok());
    assert!(wire.exchange(&message::build(0, number, 700)).expect("an answer").positive());
}

fn bundle(desk: &Desk, gateway: &str, out: &str) -> std::path::PathBuf {
    let said = desk.bundle(gateway, out, &[]);
    assert!(said.done, "{}", said.err);
    desk.path(out)
}

/// The whole way of a stranger's box: bundle, enrolment, the document that waits for it, a message at the hub. Then the same bundle again: the same box
/// is told that all is done, another one that it was used, and the desk sees both.
#[test]
fn a_bundle_makes_one_box_a_gateway_and_no_other() {
    let mut desk = Desk::new();
    let bundle = bundle(&desk, GATEWAY, "gw1.bundle");
    desk.admit();
    desk.serve();
    let port = net::free_port();
    desk.document(GATEWAY, 1, port);

    let mut one = Box_::new(desk.path("one"));
    let said = one.enroll(&bundle, &[]);
    assert!(said.done, "{}{}", said.out, said.err);
    for step in ["1/7", "2/7", "3/7", "4/7", "5/7", "6/7", "7/7"] {
        assert_eq!(said.out.matches(step).count(), 1, "{step}: {}", said.out);
    }
    assert!(desk.told("is given a certificate"));
    // Without them the keys of the desk could never be changed from afar.
    let written = fs::read_to_string(one.config()).expect("the configuration");
    assert!(written.contains("recovery_keys = [") && written.contains("trust-recovery-1.pub"), "{written}");
    let none = desk.bundle("st-marys-gw9", "gw9.bundle", &["--without"]);
    assert!(!none.done && none.err.contains("say --recovery FILE"), "{}", none.err);
    assert!(desk.bundle("st-marys-gw9", "gw9.bundle", &["--no-recovery"]).done);
    one.start();
    one.connects();
    one.listens(port);
    send(port, 1);
    desk.hub.wait_for_events(1);

    let again = one.enroll(&bundle, &[]);
    assert!(again.done && again.out.contains("7/7"), "{}{}", again.out, again.err);
    let other = Box_::new(desk.path("other"));
    let refused = other.enroll(&bundle, &[]);
    assert!(!refused.done && refused.err.contains("was used by another box"), "{}{}", refused.out, refused.err);
    assert!(desk.told("refused, bundle_used"));
    assert!(!other.config().exists(), "nothing is configured");
    send(port, 2);
    desk.hub.wait_for_events(2);
    assert_eq!(desk.hub.audit().complaints(), Vec::<String>::new());
    println!("enrolment: bundle, seven steps, document and message at the hub; the second box refused");
}

/// What is wrong with a bundle is said before anything is done.
#[test]
fn a_bundle_that_is_not_for_this_box_changes_nothing() {
    let mut desk = Desk::new();
    let good = bundle(&desk, GATEWAY, "gw1.bundle");
    let other = bundle(&desk, "st-marys-gw2", "gw2.bundle");
    desk.admit();
    desk.serve();
    let box_ = Box_::new(desk.path("box"));
    let refused = |bundle: &Path, more: &[&str], words: &str| {
        let trust = fingerprint();
        let more = if more.contains(&"--trust") { more.to_vec() } else { [&["--trust", &trust], more].concat() };
        let output = box_.enrolling(bundle, &more).stdin(Stdio::null()).output().expect("the program runs");
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && err.contains(words), "{words}: {err}");
    };
    let text = fs::read_to_string(&good).expect("the bundle");
    let tampered = desk.path("tampered.bundle");
    fs::write(&tampered, text.replacen("ey", "eZ", 1)).expect("written");
    refused(&tampered, &[], "tampered.bundle: ");
    fs::write(&tampered, &text[..text.len() / 2]).expect("written");
    refused(&tampered, &[], "no enrolment bundle");
    refused(&good, &["--trust", &"0".repeat(64)], "not signed by the key with that fingerprint");
    refused(&good, &["--trust", "1234"], "a fingerprint has 20 to 64 digits");
    let nobody = box_.enrolling(&good, &[]).stdin(Stdio::null()).output().expect("the program runs");
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("say --trust"));
    assert!(box_.enrolled().is_empty() && !box_.config().exists(), "nothing was touched so far");

    let said = box_.enroll(&good, &[]);
    assert!(said.done, "{}{}", said.out, said.err);
    let before = fs::read(box_.config()).expect("the configuration");
    refused(&other, &[], "this box is gateway st-marys-gw1 at st-marys");
    // A new bundle of its own takes --again; what the site added stays.
    let own = desk.bundle(GATEWAY, "anew.bundle", &["--replace"]);
    assert!(own.done, "{}", own.err);
    desk.admit();
    refused(&desk.path("anew.bundle"), &[], "say --again");
    assert_eq!(fs::read(box_.config()).expect("the configuration"), before);
    let added = "\n[[feed]]\nid = \"local\"\nforward = \"raw\"\nphi = \"allowed\"\n[feed.mllp]\nlisten = \"127.0.0.1:2575\"\n";
    fs::write(box_.config(), [&before[..], added.as_bytes()].concat()).expect("written");
    let said = box_.enroll(&desk.path("anew.bundle"), &["--again"]);
    assert!(said.done, "{}{}", said.out, said.err);
    assert!(fs::read_to_string(box_.config()).expect("the configuration").contains("id = \"local\""));
    assert!(fs::read_to_string(box_.directory.join("etc/siteward.toml.before")).expect("the one before").contains("id = \"local\""));
    // The first bundle is of no use to anybody now: the broker does not even shake hands with it.
    let late = Box_::new(desk.path("late")).enroll(&good, &["--wait", "5s"]);
    assert!(!late.done && late.err.contains("does not accept our certificate"), "{}{}", late.out, late.err);
    println!("enrolment: tampered, cut, misjudged and foreign bundles refused; a new one taken with --again");
}

/// Killed at each line it says and at moments between, started again with the same bundle: one key, one certificate, one good configuration.
#[test]
fn killed_in_every_step_the_same_bundle_ends_the_same() {
    let mut desk = Desk::new();
    let rounds: u64 = if harness::long() { 40 } else { 10 };
    for round in 0..rounds {
        assert!(desk.bundle(&format!("gw{round}"), &format!("{round}.bundle"), &[]).done);
    }
    desk.admit();
    desk.serve();
    let (trust, mut kills) = (fingerprint(), 0);
    for round in 0..rounds {
        let (bundle, box_) = (desk.path(&format!("{round}.bundle")), Box_::new(desk.path(&format!("box-{round}"))));
        let mut key = None;
        for line in 1..=7 {
            let mut child =
                box_.enrolling(&bundle, &["--trust", &trust]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it runs");
            let mut said = BufReader::new(child.stdout.take().expect("piped")).lines();
            let mark = format!("{line}/7");
            let reached = said.any(|said| said.is_ok_and(|said| said.starts_with(&mark)));
            std::thread::sleep(Duration::from_millis(round * 7 % 23));
            child.kill().expect("it is killed, or was done");
            child.wait().expect("it ended");
            kills += u64::from(reached);
            let made = box_.enrolled().first().and_then(|directory| fs::read(directory.join("gateway.key")).ok());
            assert!(key.is_none() || key == made, "the key is made once");
            key = made.or(key);
        }
        let said = box_.enroll(&bundle, &[]);
        assert!(said.done, "round {round}: {}{}", said.out, said.err);
        let directory = box_.enrolled().pop().expect("one enrolment");
        assert_eq!(fs::read(directory.join("gateway.key")).ok(), key);
        assert!(!directory.join("enrolment.key").exists(), "what served its purpose is gone");
        let check = box_.command(&["check"]);
        assert!(check.done, "{}", check.err);
    }
    let list: serde_json::Value = serde_json::from_str(&desk.does(&["enroll", "list", "--state", "state", "--json"])).expect("JSON");
    for record in list.as_array().expect("a list") {
        assert_eq!(record["certificates"].as_array().map(Vec::len), Some(1), "one certificate for one bundle: {record}");
    }
    println!("enrolment: killed {kills} times in {rounds} enrolments, each ended with one key and one certificate");
}

/// A dead box is replaced: the hub names the last seq it has, the old certificate is refused by the broker before it says a word, and the new box
/// goes on under the same name.
#[test]
fn a_dead_box_is_replaced_and_its_certificate_refused() {
    let mut desk = Desk::new();
    let first = bundle(&desk, GATEWAY, "first.bundle");
    desk.admit();
    desk.serve();
    let port = net::free_port();
    desk.document(GATEWAY, 1, port);
    let mut old = Box_::new(desk.path("old"));
    assert!(old.enroll(&first, &[]).done);
    old.start();
    old.listens(port);
    for number in 1..=7 {
        send(port, number);
    }
    desk.hub.wait_for_events(7);
    old.kill();

    let again = desk.bundle(GATEWAY, "second.bundle", &[]);
    assert!(!again.done && again.err.contains("say --replace"), "{}", again.err);
    let account = desk.hub.out().display().to_string();
    let made = desk.bundle(GATEWAY, "second.bundle", &["--replace", "--account", &account]);
    assert!(made.done && made.out.contains("or-usage: seen through seq 7 at 20"), "{}{}", made.out, made.err);
    assert!(made.out.contains("; later unknown") && made.out.contains("retired: "), "{}", made.out);
    assert!(made.out.contains("configuration: revision 1 ran at 20"), "what the new box has to get: {}", made.out);
    desk.admit();

    let mut new = Box_::new(desk.path("new"));
    let said = new.enroll(&desk.path("second.bundle"), &[]);
    assert!(said.done, "{}{}", said.out, said.err);
    new.start();
    new.connects();
    new.listens(port);
    send(port, 8);
    desk.hub.wait_for_events(8);

    // The old one comes back from the dead, on a port of its own.
    let revived = fs::read_to_string(old.config()).expect("its configuration");
    fs::write(old.config(), revived).expect("written");
    new.process().pause();
    old.start();
    wait::wait_until("the old box is refused", wait::EVENTUALLY, || {
        let status = old.status();
        let refused = status["conditions"].as_array().is_some_and(|all| all.iter().any(|one| one["code"] == "uplink_refused"));
        refused && status["uplink"]["last_error"].as_str().is_some_and(|why| why.contains("does not accept our certificate"))
    });
    old.kill();
    new.process().resume();
    send(port, 9);
    desk.hub.wait_for_events(9);
    println!("enrolment: replaced box goes on; the old certificate is refused in the handshake; the account said: seen through seq 7");
}

/// A certificate of another authority: the request goes out as a file, what comes back must be for that key and in that name.
#[test]
fn another_authority_signs_through_files() {
    let mut desk = Desk::new();
    let ca = harness::pki::Pki::new(&desk.path("enterprise"), "enterprise CA");
    let issuer = ca.ca.display().to_string();
    let said = desk.bundle(GATEWAY, "gw1.bundle", &["--outside", "--outside-ca", &issuer]);
    assert!(said.done, "{}", said.err);
    desk.admit();
    desk.serve();
    let box_ = Box_::new(desk.path("box"));
    let waiting = box_.enroll(&desk.path("gw1.bundle"), &["--wait", "5s"]);
    assert!(!waiting.done && waiting.err.contains("the certificate did not come"), "{}{}", waiting.out, waiting.err);
    let of = ["--state", "state", "--site", "st-marys", "--gateway", GATEWAY];
    desk.does(&[&["certs", "export-csr"], &of[..], &["--out", "gw1.csr"]].concat());
    let csr = fs::read_to_string(desk.path("gw1.csr")).expect("the request");
    let stranger = fs::read_to_string(ca.client("stranger").cert).expect("a certificate");
    fs::write(desk.path("wrong.pem"), stranger).expect("written");
    let wrong = desk.run(&["certs", "import", "--state", "state", "wrong.pem"]);
    assert!(!wrong.done && wrong.err.contains("not for the key of any request"), "{}", wrong.err);
    fs::write(desk.path("gw1.pem"), ca.sign(&csr)).expect("written");
    desk.does(&["certs", "import", "--state", "state", "gw1.pem"]);
    // The broker has no list of that authority, so it takes none of its certificates: the box is enrolled, and its preflight says where it stops.
    let said = box_.enroll(&desk.path("gw1.bundle"), &[]);
    assert!(!said.done && said.err.contains("is enrolled") && said.err.contains("fails at step mutual_tls"), "{}{}", said.out, said.err);
    assert!(box_.config().exists());
    let mut certificate = String::new();
    let file = box_.enrolled()[0].join("gateway.pem");
    fs::File::open(file).and_then(|mut file| file.read_to_string(&mut certificate)).expect("the certificate");
    assert_eq!(certificate, fs::read_to_string(desk.path("gw1.pem")).expect("what was issued"));
    println!("enrolment: certificate of another authority by files; one for another key refused");
}

/// I2: a gateway ends only when the hub has everything, or somebody said that it is lost; its keys and spool are gone, killed or not, and the record
/// says what was.
#[test]
fn a_gateway_is_retired_with_nothing_lost_unless_somebody_says_so() {
    let mut desk = Desk::new();
    let bundle = bundle(&desk, GATEWAY, "gw1.bundle");
    desk.admit();
    desk.serve();
    let port = net::free_port();
    desk.document(GATEWAY, 1, port);
    let mut box_ = Box_::new(desk.path("box"));
    assert!(box_.enroll(&bundle, &[]).done);
    box_.start();
    box_.listens(port);
    send(port, 1);
    desk.hub.wait_for_events(1);
    let running = box_.command(&["retire", "--reason", "closed"]);
    assert!(!running.done && running.err.contains("the agent runs"), "{}{}", running.out, running.err);

    // With the hub gone what is stored cannot be confirmed.
    desk.broker.stop();
    send(port, 2);
    send(port, 3);
    let waiting = box_.command(&["retire", "--reason", "closed", "--drain", "2"]);
    assert!(!waiting.done && waiting.err.contains("2 records are not confirmed"), "{}{}", waiting.out, waiting.err);
    box_.process().terminate();
    box_.process().ended(wait::SOON);
    let refused = box_.command(&["retire", "--reason", "closed"]);
    assert!(!refused.done && refused.err.contains("2 records that the hub has not confirmed, feed or-usage seq 2 to 3"), "{}", refused.err);
    assert!(box_.config().exists());

    desk.broker.restart();
    box_.start();
    let resumed = || box_.command(&["feeds", "resume", "--feed", "or-usage", "--why", "not yet"]).done;
    wait::wait_until("the feed is resumed", wait::EVENTUALLY, resumed);
    box_.listens(port);
    desk.hub.wait_for_events(3);
    let keys = [box_.directory.join("spool/spool.key"), box_.enrolled()[0].join("gateway.key")];
    assert!(keys.iter().all(|key| key.exists()));
    let mut retiring = std::process::Command::new(harness::program("siteward"));
    let retiring = retiring.args(["retire", "--reason", "closed", "--drain", "60"]).arg("--config").arg(box_.config());
    let mut child = retiring.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut said = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let told = said.any(|line| line.contains("the hub's broker has the audit record; stop the agent now"));
    assert!(told, "the hub is told before the agent ends");
    box_.process().terminate();
    box_.process().ended(wait::SOON);
    let rest: Vec<String> = said.collect();
    assert!(child.wait().expect("it ended").success() && rest.join(" ").contains("nothing was lost"), "{rest:?}");
    assert!(!box_.config().exists() && keys.iter().all(|key| !key.exists()));
    assert_eq!(fs::read_dir(box_.directory.join("spool")).expect("the directory").count(), 0);
    let record = fs::read(box_.directory.join(format!("etc/disposal-{GATEWAY}.json"))).expect("the record");
    let record: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
    assert_eq!((&record["progress"], &record["reported"], &record["lost"]["quarantined"]), (&"done".into(), &true.into(), &0.into()));
    let audited = wait::try_until(wait::EVENTUALLY, || {
        fs::read_to_string(desk.hub.out()).unwrap_or_default().contains("\"what\":\"retirement_announced\"")
    });
    assert!(audited, "the receiver's output has the audit record");
    desk.does(&["enroll", "retire", "--state", "state", "--site", "st-marys", "--gateway", GATEWAY, "--reason", "closed"]);
    println!("enrolment: retired; refused while 2 records were unconfirmed, then drained, reported, erased");
}
