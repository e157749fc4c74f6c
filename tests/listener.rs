//! Who may connect to a listener, and how: TLS with and without certificates of senders, lists of addresses, senders without framing, and the
//! pause after store failures. Whoever is turned away finds a reason in the log, and nobody else notices.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::path::Path;
use std::time::Duration;

use harness::canary;
use harness::link::Weather;
use harness::message::{self, CANARIES};
use harness::mosquitto;
use harness::net;
use harness::pki::{Identity, Pki};
use harness::scene::{Directory, Scene};
use harness::sender::{Crew, Plan, Told, Wire};
use harness::site::{Configuration, Site};
use harness::tls::{Client, Stream};
use harness::wait;

/// A site without a hub whose first feed listens as the test says.
struct Gateway {
    site: Site,
    pki: Pki,
    directory: Directory,
}

impl Gateway {
    /// Not started yet.
    fn new(lines: impl FnOnce(&Pki) -> Vec<String>) -> Self {
        let directory = Directory::new();
        let pki = Pki::new(&directory.path().join("pki"), "harness CA");
        let mut configuration = Configuration::new(&directory.path().join("site"));
        configuration.feeds[0].mllp = lines(&pki);
        let site = Site::new(&directory.path().join("site"), configuration);
        Self { site, pki, directory }
    }

    fn start(lines: impl FnOnce(&Pki) -> Vec<String>) -> Self {
        let mut gateway = Self::new(lines);
        gateway.site.start();
        gateway
    }

    fn sender(&self, identity: Option<&Identity>) -> Client {
        Client::new(&self.pki.ca, identity)
    }

    fn tls_wire(&self, identity: Option<&Identity>) -> Wire {
        self.sender(identity).connect(self.site.addr(), wait::SOON).expect("a TLS connection")
    }

    /// This sender does not get in, and no answer.
    fn turns_away(&self, client: &Client) {
        let exchange = client.connect(self.site.addr(), wait::SOON).and_then(|mut wire| wire.exchange(&message::build(66, 1, 700)));
        assert!(exchange.is_err(), "an answer for somebody who may not connect: {exchange:?}");
    }

    fn log_says(&self, words: &str) {
        let said = wait::try_until(wait::SOON, || self.site.log().contains(words));
        assert!(said, "the log does not say `{words}`; it ends with:\n{}", self.site.log_tail());
    }

    fn condition_is_over(&self, code: &str) {
        wait::wait_until(&format!("{code} is over"), wait::SOON, || !self.site.conditions().iter().any(|c| c == code));
    }

    fn text_of(&self, code: &str) -> String {
        self.site.condition(code, wait::SOON);
        let status = self.site.status();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().find(|c| c["code"] == code).and_then(|c| c["text"].as_str()).unwrap_or_default().to_owned()
    }

    /// I7: nothing of a message in the log, the status or the spool.
    fn keeps_quiet(&self) {
        let status = self.site.status().to_string();
        let found = canary::find(self.directory.path(), &CANARIES);
        assert!(found.is_empty() && CANARIES.iter().all(|c| !status.contains(c)), "message content in clear: {found:?}");
    }
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

/// Lines of `[feed.mllp]` for TLS with this pair.
fn tls_lines(listener: &Identity) -> Vec<String> {
    vec!["[feed.mllp.tls]".to_owned(), format!("cert = {}", quoted(&listener.cert)), format!("key = {}", quoted(&listener.key))]
}

/// Senders must prove themselves.
fn proven(pki: &Pki) -> Vec<String> {
    let mut lines = tls_lines(&pki.server_called("listener"));
    lines.push(format!("client_ca = {}", quoted(&pki.ca)));
    lines
}

/// I1: what is acknowledged over TLS reaches the hub like anything else, in both versions, from many senders at once.
#[test]
fn messages_over_tls_arrive_complete_and_in_order() {
    let listener = Directory::new();
    let pki = Pki::new(listener.path(), "hospital CA");
    let mut scene = Scene::new(mosquitto::Options::default(), |configuration| {
        configuration.feeds[0].mllp = tls_lines(&pki.server_called("listener"));
    });
    scene.start();
    let size: fn(usize, u64) -> usize = |_, number| if number % 20 == 9 { 300_000 } else { 700 };
    let crews: Vec<Crew> = [&rustls::version::TLS13, &rustls::version::TLS12]
        .into_iter()
        .enumerate()
        .map(|(i, version)| {
            let tls = Some(Client::with_versions(&pki.ca, None, &[version]));
            Crew::start(&Plan { first_connection: i * 10, size, tls, window: 4, ..Plan::new(scene.site.addr(), 4, 40) })
        })
        .collect();
    let told: Vec<Told> = crews.into_iter().flat_map(Crew::finish).collect();
    scene.hub.wait_for_events(320);
    scene.site.stop();
    scene.hub.stop();
    let audit = scene.hub.audit();
    assert_eq!(audit.broken_promises(&told, size), Vec::<String>::new());
    assert_eq!(audit.events(), 320);
}

#[test]
fn a_sender_must_prove_itself_where_the_feed_asks_for_it() {
    let gateway = Gateway::start(proven);
    let good = gateway.pki.client("EPIC-BRIDGES");
    assert!(gateway.tls_wire(Some(&good)).exchange(&message::build(1, 1, 700)).expect("an answer").positive());
    gateway.turns_away(&gateway.sender(None));
    gateway.log_says("no_client_certificate");
    let foreign = Pki::new(&gateway.directory.path().join("foreign"), "another CA").client("EPIC-BRIDGES");
    gateway.turns_away(&gateway.sender(Some(&foreign)));
    gateway.log_says("client_ca_unknown");
    gateway.turns_away(&gateway.sender(Some(&gateway.pki.server_called("no-client"))));
    gateway.log_says("client_certificate_unusable");
    let text = gateway.text_of("tls_refused");
    assert!(text.contains("asks for one (client_ca)"), "the first reason stands for a minute: {text}");
    assert!(gateway.site.feed_status("or-usage")["connections_refused"].as_u64().expect("a count") >= 3);
    assert!(gateway.tls_wire(Some(&good)).exchange(&message::build(1, 2, 700)).expect("an answer").positive());
    gateway.keeps_quiet();
}

#[test]
fn a_certificate_must_be_on_the_list_where_there_is_one() {
    let gateway = Gateway::start(|pki| {
        let mut lines = proven(pki);
        lines.push("client_subjects = [\"CN=EPIC-BRIDGES\", \"cabinets.st-marys.example\"]".into());
        lines
    });
    let by_dns = gateway.pki.client_with_dns("whoever", "Cabinets.St-Marys.example");
    for (number, identity) in [(1, gateway.pki.client("EPIC-BRIDGES")), (2, by_dns)] {
        assert!(gateway.tls_wire(Some(&identity)).exchange(&message::build(1, number, 700)).expect("an answer").positive());
    }
    for (name, dns) in
        [("EPIC-BRIDGES2", "x.example"), ("epic-bridges", "y.example"), ("cabinets.st-marys.example", "sub.cabinets.st-marys.example")]
    {
        gateway.turns_away(&gateway.sender(Some(&gateway.pki.client_with_dns(name, dns))));
    }
    gateway.log_says("client_subject_unknown");
    gateway.log_says("its names: \\\"CN=EPIC-BRIDGES2\\\", \\\"x.example\\\"");
}

#[test]
fn a_sender_that_does_not_know_our_authority_is_explained() {
    let gateway = Gateway::start(|pki| tls_lines(&pki.server_called("listener")));
    let foreign = Pki::new(&gateway.directory.path().join("foreign"), "another CA");
    gateway.turns_away(&Client::new(&foreign.ca, None));
    gateway.log_says("certificate_refused_by_peer");
    assert!(gateway.text_of("tls_refused").contains("Give the sender the authority that issued the feed's `cert`"));
    assert!(gateway.tls_wire(None).exchange(&message::build(1, 1, 700)).expect("an answer").positive());
}

/// I7: and nothing of the message that came in clear is shown.
#[test]
fn plain_bytes_on_a_tls_port_are_closed_and_explained() {
    let gateway = Gateway::start(|pki| tls_lines(&pki.server_called("listener")));
    let mut wire = gateway.site.wire();
    wire.send(&message::build(1, 1, 700)).expect("bytes are sent");
    assert!(wire.reply().is_err(), "an answer without TLS");
    gateway.log_says("plain_on_tls_port");
    assert!(gateway.text_of("tls_refused").contains("Turn TLS on in the sender's connection to this port"));
    assert!(net::listening(gateway.site.addr()), "a port check is served, and is not worth a word");
    assert!(gateway.tls_wire(None).exchange(&message::build(1, 2, 700)).expect("an answer").positive());
    gateway.keeps_quiet();
}

#[test]
fn a_tls_sender_on_a_plain_port_is_closed_and_explained() {
    let gateway = Gateway::start(|_| Vec::new());
    gateway.turns_away(&gateway.sender(None));
    gateway.log_says("tls_on_plain_port");
    gateway.site.condition("frame_unusable", wait::SOON);
    assert!(gateway.site.wire().exchange(&message::build(1, 1, 700)).expect("an answer").positive());
}

/// I4: they have their seats and their deadline; a sender that is there stays, one that comes gets in.
#[test]
fn slow_handshakes_on_many_connections_disturb_nobody() {
    let gateway = Gateway::start(|pki| {
        let mut lines = vec!["connections_max = 50".to_owned()];
        lines.extend(tls_lines(&pki.server_called("listener")));
        lines
    });
    let mut there = gateway.tls_wire(None);
    assert!(there.exchange(&message::build(1, 1, 700)).expect("an answer").positive());
    let mut slow = Vec::new();
    for number in 0..300 {
        let mut wire = Wire::connect(gateway.site.addr(), wait::SOON).expect("a connection");
        if number % 2 == 0 {
            // the first bytes of a hello; those asked to make room may be gone already
            let _ = wire.send_raw(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]);
        }
        slow.push(wire);
        if number % 60 == 30 {
            assert!(there.exchange(&message::build(1, number + 2, 700)).expect("an answer on the old connection").positive());
        }
    }
    let mut comes = gateway.tls_wire(None);
    assert!(comes.exchange(&message::build(2, 1, 700)).expect("an answer for a newcomer").positive());
    assert!(there.exchange(&message::build(1, 1000, 700)).expect("an answer on the old connection").positive());
    gateway.log_says("tls_handshake_timeout");
    gateway.site.condition("tls_refused", wait::SOON);
    assert!(there.exchange(&message::build(1, 1001, 700)).expect("an answer on the old connection").positive());
    wait::wait_until("the slow ones are gone", wait::SOON, || gateway.site.feed_status("or-usage")["connections"] == 2);
}

#[test]
fn a_replaced_certificate_serves_the_next_connection_and_the_old_one_lives_on() {
    let gateway = Gateway::start(|pki| tls_lines(&pki.server_called("listener")));
    let mut old = gateway.tls_wire(None);
    assert!(old.exchange(&message::build(1, 1, 700)).expect("an answer").positive());
    let (shown, pair) = (old.certificate().expect("a certificate"), gateway.pki.server_called("listener"));
    let serves_another = || gateway.tls_wire(None).certificate().is_some_and(|now| now != shown);
    wait::wait_until("new connections see the new certificate", wait::SOON, serves_another);
    assert!(gateway.tls_wire(None).exchange(&message::build(1, 2, 700)).expect("an answer").positive());
    assert!(old.exchange(&message::build(1, 3, 700)).expect("an answer on the old connection").positive());
    gateway.log_says("certificate files changed");

    // A key that belongs to another certificate, as after half a copy.
    let renewed = gateway.tls_wire(None).certificate();
    let good = std::fs::read(&pair.key).expect("the key");
    std::fs::copy(&gateway.pki.server_called("other").key, &pair.key).expect("a copy");
    let text = gateway.text_of("feed_certificate_invalid");
    assert!(text.contains("listener.key") && text.contains("is not the key of the certificate in `cert`"), "{text}");
    let mut wire = gateway.tls_wire(None);
    assert_eq!(wire.certificate(), renewed, "the old pair stays in use");
    assert!(wire.exchange(&message::build(1, 4, 700)).expect("an answer").positive());
    std::fs::write(&pair.key, good).expect("the right key again");
    gateway.condition_is_over("feed_certificate_invalid");
    assert!(!gateway.site.log().contains("PRIVATE KEY"));
}

#[test]
fn a_listener_whose_certificate_cannot_be_used_is_refused_by_check_with_its_place() {
    let gateway = Gateway::new(|pki| {
        let (listener, other) = (pki.server_called("listener"), pki.server_called("other"));
        let mut lines = vec!["peers = [\"127.0.0.1/8\"]".to_owned()];
        lines.extend(tls_lines(&Identity { cert: listener.cert, key: other.key }));
        lines
    });
    let output = gateway.site.command(&["check"]);
    assert_eq!(output.status.code(), Some(78));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let line_of = |key: &str| 1 + gateway.site.configuration.text().lines().position(|l| l.starts_with(key)).expect("a line");
    for (line, words) in [
        (line_of("peers"), "feed[0].mllp.peers: entry 1 has bits behind its prefix"),
        (line_of("key"), "feed[0].mllp.tls.key: is not the key of the certificate in feed[0].mllp.tls.cert"),
    ] {
        assert!(told.contains(&format!("siteward.toml:{line}: {words}")), "{told}");
    }
}

#[test]
fn senders_outside_the_list_are_closed_at_once() {
    let gateway = Gateway::start(|_| vec!["peers = [\"127.0.0.2/31\", \"::1\"]".to_owned()]);
    let from = |source: [u8; 4]| {
        let stream = net::connect_from(Ipv4Addr::from(source), gateway.site.addr()).expect("a connection");
        stream.set_read_timeout(Some(wait::SOON)).expect("a socket option");
        Wire::over(Stream::Plain(stream))
    };
    for last in [1, 4, 200] {
        let mut wire = from([127, 0, 0, last]);
        // it may be closed already
        let _ = wire.send(&message::build(1, 1, 700));
        assert!(wire.closed_without_reply());
    }
    let text = gateway.text_of("peer_refused");
    assert!(text.contains("outside the feed's `peers`"), "{text}");
    for last in [2, 3] {
        assert!(from([127, 0, 0, last]).exchange(&message::build(1, last.into(), 700)).expect("an answer").positive());
    }
    let lines = gateway.site.log().lines().filter(|line| line.contains("oddity=\"peer_refused\"")).count();
    assert_eq!(lines, 1, "one line a minute, however many come");
    assert!(gateway.site.feed_status("or-usage")["connections_refused"].as_u64().expect("a count") >= 3);
    assert!(!gateway.site.conditions().contains(&"listener_open".to_owned()));
    gateway.keeps_quiet();
}

/// A listener on `[::]` sees IPv4 senders as IPv6 ones; the list means them all the same.
#[test]
fn ipv4_senders_of_an_ipv6_listener_are_known_by_their_ipv4_addresses() {
    if TcpListener::bind("[::]:0").is_err() {
        println!("skipped: this machine has no IPv6");
        return;
    }
    let mut gateway = Gateway::new(|_| vec!["peers = [\"127.0.0.2\"]".to_owned()]);
    gateway.site.configuration.feeds[0].host = "[::]";
    gateway.site.write_configuration();
    gateway.site.start();
    let mut stranger = gateway.site.wire();
    assert!(stranger.closed_without_reply());
    let stream = net::connect_from(Ipv4Addr::new(127, 0, 0, 2), gateway.site.addr()).expect("a connection");
    assert!(Wire::over(Stream::Plain(stream)).exchange(&message::build(1, 1, 700)).expect("an answer").positive());
}

#[test]
fn a_listener_that_takes_from_anybody_is_told() {
    let open = |lines: fn(&Pki) -> Vec<String>| {
        let mut gateway = Gateway::new(lines);
        gateway.site.configuration.feeds[0].host = "0.0.0.0";
        gateway.site.write_configuration();
        gateway.site.start();
        gateway.site.conditions().contains(&"listener_open".to_owned())
    };
    assert!(open(|_| Vec::new()));
    assert!(open(|_| vec!["peers = [\"127.0.0.1\", \"0.0.0.0/0\"]".into()]));
    assert!(open(|pki| tls_lines(&pki.server_called("listener"))), "TLS alone proves no sender");
    assert!(!open(|_| vec!["peers = [\"127.0.0.0/8\"]".into()]));
    assert!(!open(proven));
    let loopback = Gateway::start(|_| Vec::new());
    assert!(!loopback.site.conditions().contains(&"listener_open".to_owned()));
}

/// I1: a whole message is taken without framing where the feed says so; half a message is never answered.
#[test]
fn a_sender_without_framing_is_taken_where_the_feed_says_so() {
    let gateway = Gateway::start(|_| vec!["unframed = true".to_owned(), "frame_timeout = \"3s\"".to_owned()]);
    let mut wire = gateway.site.wire();
    wire.send_raw(&message::build(1, 1, 700)).expect("bytes are sent");
    assert_eq!(wire.reply().expect("an answer after a silence").control_id, b"C01S000001");
    let several =
        [message::build(1, 2, 700), message::build(1, 3, 90_000), b"\n\x0B".to_vec(), message::build(1, 4, 700), b"\x1C\r".to_vec()];
    wire.send_raw(&several.concat()).expect("bytes are sent");
    for number in 2..5 {
        let reply = wire.reply().expect("an answer");
        assert_eq!((reply.code.as_str(), reply.control_id), ("AA", message::control_id(1, number).into_bytes()));
    }
    // closed in order behind a segment: a whole message
    wire.send_raw(&message::build(1, 5, 700)).expect("bytes are sent");
    wire.stream().shutdown(Shutdown::Write).expect("the sender's side is closed");
    assert_eq!(wire.reply().expect("an answer before the connection ends").control_id, b"C01S000005");

    for ends in [true, false] {
        let mut half = gateway.site.wire();
        let message = message::build(2, 1, 700);
        half.send_raw(&message[..message.len() - 9]).expect("bytes are sent");
        if ends {
            half.stream().shutdown(Shutdown::Write).expect("the sender's side is closed");
        }
        assert!(half.closed_without_reply(), "half a message was answered");
    }
    gateway.log_says("frame_timeout");

    let mut pausing = gateway.site.wire();
    let message = message::build(3, 1, 700);
    let second = message.windows(4).position(|w| w == b"\rPID").expect("a segment") + 1;
    pausing.send_raw(&message[..second]).expect("bytes are sent");
    assert_eq!(pausing.reply().expect("what no rule can see").control_id, b"C03S000001");
    pausing.send_raw(&message[second..]).expect("bytes are sent");
    assert!(pausing.closed_without_reply());
    gateway.log_says("unframed_rest");
    gateway.site.condition("frame_unusable", wait::SOON);
    assert_eq!(gateway.site.feed_status("or-usage")["captured"], 6);
    gateway.keeps_quiet();
}

/// Sends until there is no positive answer any more; how many there were.
fn fill(site: &Site, from: u64) -> u64 {
    let mut wire = site.wire();
    (from..from + 2_000).take_while(|number| wire.exchange(&message::build(1, *number, 40_000)).is_ok_and(|reply| reply.positive())).count()
        as u64
}

/// I5: senders of a full box are not closed again and again: no accept for 5 s, then 10 s, and 5 s again once something was stored.
#[test]
fn the_pause_after_store_failures_grows_and_starts_anew_after_a_success() {
    let mut scene = Scene::new(mosquitto::Options::default(), |configuration| configuration.max_bytes = "16MiB".into());
    scene.link.set(Weather::Down);
    scene.start();
    let pauses = |site: &Site| -> Vec<String> {
        let log = site.log();
        log.split("pause_s=").skip(1).map(|rest| rest.chars().take_while(char::is_ascii_digit).collect()).collect()
    };
    let first = fill(&scene.site, 1);
    assert!(first > 50, "only {first} messages fitted");
    let mut waits = scene.site.wire();
    assert!(waits.exchange(&message::build(1, first + 1, 40_000)).is_err(), "the spool is full");
    wait::wait_until("the pause grows", wait::SOON, || pauses(&scene.site) == ["5", "10"]);

    scene.link.set(Weather::Fair);
    scene.hub.wait_for_events(first);
    wait::wait_until("everything is settled", wait::EVENTUALLY, || scene.site.try_queued() == Some(0));
    wait::wait_until("capture goes on", wait::EVENTUALLY, || {
        Wire::connect(scene.site.addr(), wait::SOON)
            .and_then(|mut wire| wire.exchange(&message::build(1, first + 1, 40_000)))
            .is_ok_and(|reply| reply.positive())
    });
    let before = pauses(&scene.site).len();
    scene.link.set(Weather::Down);
    fill(&scene.site, first + 2);
    wait::wait_until("a pause begins anew", wait::SOON, || pauses(&scene.site).get(before).is_some_and(|pause| pause == "5"));
}

/// The slow way to say hello: byte by byte, but in time.
#[test]
fn a_handshake_in_small_pieces_succeeds() {
    let gateway = Gateway::start(|pki| tls_lines(&pki.server_called("listener")));
    let between = TcpListener::bind(net::loopback(0)).expect("a port");
    let (addr, target) = (between.local_addr().expect("its address"), gateway.site.addr());
    let pieces = std::thread::spawn(move || {
        let (mut near, _) = between.accept().expect("the sender");
        let mut far = std::net::TcpStream::connect(target).expect("the gateway");
        far.set_nodelay(true).expect("a socket option");
        let (mut near_back, mut far_back) = (near.try_clone().expect("a handle"), far.try_clone().expect("a handle"));
        let back = std::thread::spawn(move || std::io::copy(&mut far_back, &mut near_back));
        let mut buffer = [0u8; 61];
        while let Ok(count @ 1..) = near.read(&mut buffer) {
            for byte in &buffer[..count] {
                if far.write_all(&[*byte]).is_err() {
                    return;
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        far.shutdown(Shutdown::Both).ok();
        drop(back.join());
    });
    let mut wire = gateway.sender(None).connect(addr, wait::SOON).expect("a TLS connection");
    assert!(wire.exchange(&message::build(1, 1, 700)).expect("an answer").positive());
    drop(wire);
    pieces.join().expect("the pieces were passed on");
}
