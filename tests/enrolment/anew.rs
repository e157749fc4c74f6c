//! What has to be made anew in time: the certificates of the receiver and the desk, under their names.

use harness::enrolment::{Box_, Desk};
use harness::hub::{Door, Hub};
use harness::pki::Identity;
use harness::{net, wait};

use super::{GATEWAY, send};

/// After 13 months the broker refuses the receiver, and every gateway holds and fills. The same name gets a new key; both certificates count until the
/// broker has its new files, so nothing stops for longer than a restart.
#[test]
fn receiver_and_desk_get_new_certificates_under_their_names() {
    let mut desk = Desk::new();
    assert!(desk.bundle(GATEWAY, "gw1.bundle", &[]).done);
    desk.admit();
    desk.serve();
    let port = net::free_port();
    desk.document(GATEWAY, 1, port);
    let mut box_ = Box_::new(desk.path("box"));
    assert!(box_.enroll(&desk.path("gw1.bundle"), &[]).done);
    box_.start();
    box_.listens(port);
    send(port, 1);
    desk.hub.wait_for_events(1);

    std::fs::create_dir(desk.path("identities-2")).expect("a directory");
    let make = |desk: &Desk, name: &str, role: &str, more: &[&str], out: &str| {
        desk.run(&[&["enroll", "identity", "--state", "state", "--name", name, "--role", role, "--out", out][..], more].concat())
    };
    let once = make(&desk, "receiver", "receiver", &[], "identities-2");
    assert!(!once.done && once.err.contains("say --again"), "{}", once.err);
    let over = make(&desk, "receiver", "receiver", &["--again"], "identities");
    assert!(!over.done && over.err.contains("nothing is ever written over"), "{}", over.err);
    for (name, role) in [("receiver", "receiver"), ("central-desk", "desk")] {
        let made = make(&desk, name, role, &["--again"], "identities-2");
        assert!(made.done && made.out.contains("first let"), "{}{}", made.out, made.err);
    }
    let listed = desk.does(&["enroll", "list", "--state", "state"]);
    assert!(listed.contains("receiver (receiver): its certificate ends 20"), "{listed}");

    // The receiver changes over while both count.
    desk.hub.stop();
    let client = Identity { cert: desk.path("identities-2/receiver.pem"), key: desk.path("identities-2/receiver.key") };
    let door = Door::Tls { broker: desk.broker.tls(), ca: desk.pki.ca.clone(), client };
    desk.hub = Hub::new(&desk.path("hub"), door);
    desk.hub.start();
    send(port, 2);
    desk.hub.wait_for_events(2);

    let said = desk.does(&["broker", "mosquitto", "--state", "state", "--out", "broker-files"]);
    assert!(said.contains("systemctl restart mosquitto"), "{said}");
    desk.admit();
    send(port, 3);
    desk.hub.wait_for_events(3);
    let fleet = |identities: &str| {
        let (broker, ca) = (format!("mqtts://{}", desk.broker.tls()), desk.pki.ca.display().to_string());
        let files = ["pem", "key"].map(|ending| format!("{identities}/central-desk.{ending}"));
        desk.run(&["fleet", "--broker", &broker, "--ca", &ca, "--cert", &files[0], "--key", &files[1], "--json"])
    };
    let new = wait::wait_for("the new certificate is let in", wait::EVENTUALLY, || Some(fleet("identities-2")).filter(|said| said.done));
    assert!(new.out.contains(GATEWAY), "{}", new.out);
    let old = fleet("identities");
    assert!(!old.done && old.err.contains("does not accept our certificate"), "{}{}", old.out, old.err);
    assert_eq!(desk.hub.audit().complaints(), Vec::<String>::new());
    println!("enrolment: receiver and desk have new certificates under their names, the old ones are refused; 3 messages at the hub");
}

/// While a document runs, feeds of the local file do not count; whoever adds one there is told, before and after.
#[test]
fn a_feed_in_the_local_file_beside_a_document_is_said() {
    let mut desk = Desk::new();
    assert!(desk.bundle(GATEWAY, "gw1.bundle", &[]).done);
    desk.admit();
    desk.serve();
    let mut box_ = Box_::new(desk.path("box"));
    assert!(box_.enroll(&desk.path("gw1.bundle"), &[]).done);
    box_.start();
    let has = |box_: &Box_, code: &str| {
        let status = box_.status();
        status["conditions"].as_array().is_some_and(|all| all.iter().any(|one| one["code"] == code))
    };
    if harness::long() {
        wait::wait_until("it says that it takes nothing from anybody", wait::EVENTUALLY, || has(&box_, "no_feeds"));
    }
    let port = net::free_port();
    desk.document(GATEWAY, 1, port);
    box_.listens(port);
    wait::wait_until("the document is committed", wait::EVENTUALLY, || box_.command(&["config", "history"]).out.contains("committed"));
    wait::wait_until("it takes something now", wait::EVENTUALLY, || !has(&box_, "no_feeds") && !has(&box_, "local_feeds_unused"));

    let text = std::fs::read_to_string(box_.config()).expect("the configuration");
    let added = "\n[[feed]]\nid = \"acme\"\nforward = \"raw\"\nphi = \"allowed\"\n[feed.mllp]\nlisten = \"127.0.0.1:2575\"\n";
    std::fs::write(box_.config(), text.clone() + added).expect("written");
    let check = box_.command(&["check"]);
    assert!(
        check.done && check.out.contains("revision 1 of central IT runs") && check.out.contains("does not count (acme)"),
        "{}",
        check.out
    );
    box_.process().hang_up();
    wait::wait_until("the feed that does not count is said", wait::EVENTUALLY, || has(&box_, "local_feeds_unused"));
    std::fs::write(box_.config(), text).expect("written");
    box_.process().hang_up();
    wait::wait_until("it is over with the feed", wait::EVENTUALLY, || !has(&box_, "local_feeds_unused"));
    println!("enrolment: a feed of the local file beside a document is said by check and as a condition");
}
