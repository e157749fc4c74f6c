//! What senders and operators do wrong, and what the agent does about it: a defined answer, a line in the log that says what to do, a condition,
//! and no harm to anybody else.

use std::time::Duration;

use harness::canary;
use harness::gateway::Gateway;
use harness::message::{self, CANARIES};
use harness::mosquitto;
use harness::observer;
use harness::pki::Pki;
use harness::scene::{Directory, Scene};
use harness::sender::{Crew, Plan, Told, Wire};
use harness::site::{Configuration, Site, Uplink};
use harness::wait;

/// A message with its own header line.
fn with_header(header: &str) -> Vec<u8> {
    let mut message = header.as_bytes().to_vec();
    message.extend_from_slice(format!("\rPID|1||{}||{}\r", CANARIES[1], CANARIES[0]).as_bytes());
    message
}

/// I1: bytes that are not MLLP are never answered; a frame behind them is.
#[test]
fn bytes_that_are_not_mllp_are_skipped_and_the_frame_behind_them_is_answered() {
    let gateway = Gateway::start(|_| {});
    let mut wire = gateway.site.wire();
    wire.send_raw(b"hello\r\nis anybody there?\r\n").expect("bytes are sent");
    let reply = wire.exchange(&message::build(1, 1, 700)).expect("an answer");
    assert_eq!((reply.code.as_str(), reply.control_id.as_slice()), ("AA", &b"C01S000001"[..]));
    wire.send_raw(&message::build(1, 2, 700)).expect("an unframed message is sent");
    let reply = wire.exchange(&message::build(1, 3, 700)).expect("an answer");
    assert_eq!(reply.control_id, b"C01S000003", "what was not framed is not a message");
    gateway.site.condition("frame_unusable", wait::SOON);
    gateway.keeps_quiet();
}

/// I4: somebody who sends nothing but junk is not listened to for ever.
#[test]
fn too_much_junk_ends_the_connection() {
    let gateway = Gateway::start(|_| {});
    let mut wire = gateway.site.wire();
    let mut refused = false;
    for _ in 0..64 {
        refused |= wire.send_raw(&[b'x'; 4096]).is_err();
    }
    assert!(refused || wire.closed_without_reply());
    gateway.serves_others();
}

#[test]
fn a_tls_hello_on_the_plain_port_is_closed_and_explained() {
    let gateway = Gateway::start(|_| {});
    let mut wire = gateway.site.wire();
    let hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC, 0x03, 0x03, 0x0B, 0x1C, 0x0D];
    wire.send_raw(&hello).expect("bytes are sent");
    assert!(wire.closed_without_reply());
    gateway.log_says("TLS");
    gateway.site.condition("frame_unusable", wait::SOON);
    gateway.serves_others();
}

#[test]
fn an_http_request_is_closed_and_explained() {
    let gateway = Gateway::start(|_| {});
    let mut wire = gateway.site.wire();
    wire.send_raw(b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n").expect("bytes are sent");
    assert!(wire.closed_without_reply());
    gateway.log_says("HTTP");
    gateway.serves_others();
}

/// I1, I4: refused by its header, never stored, and its neighbours on the same connection do not notice.
#[test]
fn a_frame_over_the_limit_is_refused_and_its_neighbours_are_not() {
    let gateway = Gateway::start(|c| c.spool_lines.push("message_bytes_max = \"64KiB\"".into()));
    let mut wire = gateway.site.wire();
    assert!(wire.exchange(&message::build(1, 1, 60_000)).expect("an answer").positive());
    let reply = wire.exchange(&message::build(1, 2, 300_000)).expect("an answer");
    assert_eq!((reply.code.as_str(), reply.control_id.as_slice()), ("AR", &b"C01S000002"[..]));
    assert!(wire.exchange(&message::build(1, 3, 700)).expect("an answer").positive());
    let mut enhanced = with_header("MSH|^~\\&|A|B|C|D|20261122||DFT^P03|E1|P|2.5.1|||AL|NE");
    enhanced.resize(100_000, b'x');
    assert_eq!(wire.exchange(&enhanced).expect("an answer").code, "CR");
    gateway.site.condition("frame_over_limit", wait::SOON);
    assert_eq!(gateway.site.feed_status("or-usage")["last_seq"], 2);
    gateway.keeps_quiet();
}

/// I1: what cannot be named cannot be answered positively.
#[test]
fn a_message_without_header_or_without_control_id_is_never_answered_positively() {
    let gateway = Gateway::start(|_| {});
    let mut wire = gateway.site.wire();
    let reply = wire.exchange(format!("PID|1||{}", CANARIES[1]).as_bytes()).expect("an answer");
    assert_eq!((reply.code.as_str(), reply.control_id.as_slice()), ("AR", &b""[..]));
    let reply = wire.exchange(&with_header("MSH|^~\\&|A|B|C|D|20261122||DFT^P03||P|2.5.1")).expect("an answer");
    assert_eq!((reply.code.as_str(), reply.control_id.as_slice()), ("AE", &b""[..]));
    assert!(wire.exchange(&message::build(1, 1, 700)).expect("an answer").positive());
    assert_eq!(gateway.site.feed_status("or-usage")["last_seq"], 1);
    gateway.keeps_quiet();
}

/// I1: half a message is no message, however long one waits.
#[test]
fn half_a_frame_and_then_silence_is_closed_without_an_answer() {
    let gateway = Gateway::start(|c| c.feeds[0].mllp.push("frame_timeout = \"1s\"".into()));
    let mut wire = gateway.site.wire();
    let whole = harness::sender::frame(&message::build(1, 1, 4_000));
    wire.send_raw(&whole[..2_000]).expect("half a frame is sent");
    assert!(wire.closed_without_reply());
    gateway.serves_others();
    assert_eq!(gateway.site.feed_status("or-usage")["last_seq"], 1, "the other one");
    gateway.keeps_quiet();
}

/// I1: a frame cut off in the middle and sent again whole is one message.
#[test]
fn a_frame_begun_again_inside_a_frame_counts_once() {
    let gateway = Gateway::start(|_| {});
    let mut wire = gateway.site.wire();
    let whole = harness::sender::frame(&message::build(1, 1, 4_000));
    wire.send_raw(&whole[..1_000]).expect("half a frame is sent");
    wire.send_raw(&whole).expect("the frame is sent");
    assert_eq!(wire.reply().expect("an answer").control_id, b"C01S000001");
    wire.stream().set_read_timeout(Some(Duration::from_millis(300))).expect("a socket option");
    assert!(wire.reply().is_err(), "one message, one answer");
    assert_eq!(gateway.site.feed_status("or-usage")["last_seq"], 1);
}

/// I1, I4: a whole hospital that reconnects at once is served.
#[test]
fn five_hundred_connections_at_once_are_all_answered() {
    let gateway = Gateway::start(|_| {});
    let mut wires: Vec<Wire> = (0..500).map(|_| gateway.site.wire()).collect();
    for (i, wire) in wires.iter_mut().enumerate() {
        wire.send(&message::build(i, 1, 700)).expect("a message is sent");
    }
    for (i, wire) in wires.iter_mut().enumerate() {
        let reply = wire.reply().unwrap_or_else(|e| panic!("connection {i}: {e}; {}", gateway.site.log_tail()));
        assert!(reply.positive() && reply.control_id == message::control_id(i, 1).as_bytes());
    }
    assert_eq!(gateway.site.feed_status("or-usage")["last_seq"], 500);
}

/// I4: one connection more than permitted closes the one that was idle longest, never the newcomer.
#[test]
fn the_newest_connection_is_kept() {
    let gateway = Gateway::start(|c| c.feeds[0].mllp.push("connections_max = 4".into()));
    let mut wires: Vec<Wire> = Vec::new();
    for i in 0..6 {
        let mut wire = gateway.site.wire();
        assert!(wire.exchange(&message::build(i, 1, 700)).expect("the newcomer is answered").positive());
        wires.push(wire);
    }
    assert!(wires[0].closed_without_reply());
}

/// I7: neither in the spool, nor in logs, nor in the status, whatever a message goes through.
#[test]
fn nothing_of_a_message_can_be_read_anywhere() {
    let mut gateway = Gateway::start(|c| c.spool_lines.push("message_bytes_max = \"64KiB\"".into()));
    let mut wire = gateway.site.wire();
    for number in 1..=50 {
        assert!(wire.exchange(&message::build(1, number, 2_000)).expect("an answer").positive());
    }
    let half = harness::sender::frame(&message::build(1, 51, 2_000));
    wire.send_raw(&half[..900]).expect("half a frame is sent");
    drop(wire);
    let mut wire = gateway.site.wire();
    wire.exchange(&with_header("MSH|^~\\&|A|B|C|D|20261122||DFT^P03||P|2.5.1")).expect("a refusal");
    wire.exchange(&message::build(1, 52, 200_000)).expect("a refusal");
    wire.send_raw(&message::build(1, 53, 700)).expect("an unframed message is sent");
    gateway.keeps_quiet();
    gateway.site.kill();
    gateway.site.start();
    gateway.keeps_quiet();
    gateway.site.stop();
    assert_eq!(canary::find(gateway.directory.path(), &CANARIES), vec![]);
}

#[test]
fn a_faulty_configuration_ends_with_78_and_names_every_fault_with_its_place() {
    let directory = Directory::new();
    let mut site = Site::new(directory.path(), Configuration::new(directory.path()));
    let faulty = "[gateway]\nsite = \"St Mary's\"\nid = \"gw1\"\n\n[spool]\npath = \"relative/spool\"\nmax_byte = \"4GiB\"\n\n\
                  [uplink]\nendpoints = [\"ftp://hub\"]\n\n\
                  [[feed]]\nid = \"a\"\nlane = \"fast\"\nforward = \"event\"\n[feed.mllp]\nlisten = \"nowhere\"\n";
    std::fs::write(site.config_file(), faulty).expect("the configuration is written");
    let output = site.command(&["check"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let file = site.config_file().display().to_string();
    for line in [2, 7, 10, 14, 17] {
        assert!(said.contains(&format!("{file}:{line}")), "no fault with line {line}:\n{said}");
    }
    for words in ["gateway.site", "max_bytes", "timezone", "uplink.endpoints", "critical"] {
        assert!(said.contains(words), "`{words}` is not said:\n{said}");
    }
    site.spawn();
    assert_eq!(site.process().ended(wait::SOON).code(), Some(78), "`run` says the same as `check`");
    site.write_configuration();
    let output = site.command(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn the_status_has_what_outside_tools_rely_on() {
    let gateway = Gateway::start(|_| {});
    gateway.serves_others();
    gateway.site.condition("uplink_down", wait::EVENTUALLY);
    let status = gateway.site.status();
    for pointer in [
        "/gateway",
        "/version",
        "/uptime_s",
        "/uplink/state",
        "/uplink/since",
        "/uplink/endpoint",
        "/uplink/last_error",
        "/lanes/0/name",
        "/lanes/0/records",
        "/lanes/0/bytes",
        "/lanes/0/oldest_age_s",
        "/spool/bytes",
        "/spool/max_bytes",
        "/spool/time_to_full_s",
        "/config/revision",
        "/config/state",
        "/conditions/0/code",
        "/conditions/0/severity",
        "/conditions/0/text",
        "/conditions/0/runbook",
    ] {
        assert!(status.pointer(pointer).is_some(), "{pointer} is missing: {status}");
    }
    let feed = gateway.site.feed_status("or-usage");
    for name in ["captured", "released", "queued", "duplicates", "quarantined", "last_seq", "incarnation", "last_message_at"] {
        assert!(feed.get(name).is_some(), "{name} is missing: {feed}");
    }
    assert_eq!((feed["captured"].as_u64(), feed["queued"].as_u64(), feed["last_seq"].as_u64()), (Some(1), Some(1), Some(1)));
    let table = gateway.site.command(&["status"]);
    assert!(table.status.success() && String::from_utf8_lossy(&table.stdout).contains("or-usage"), "{table:?}");
}

/// I1, I2: SIGTERM in the middle of the traffic ends with 0, says offline, and loses nothing.
#[test]
fn a_stop_in_the_middle_of_the_traffic_loses_nothing_and_says_offline() {
    let mut scene = Scene::new(mosquitto::Options::default(), |_| {});
    scene.start();
    let crew = Crew::start(&Plan { pause: Duration::from_millis(1), ..Plan::new(scene.site.addr(), 8, 200) });
    wait::wait_while_growing("acknowledged", wait::EVENTUALLY, || crew.acknowledged(), 600);
    scene.site.stop();
    let state = observer::retained(scene.broker.plain(), "siteward/v1/st-marys/st-marys-gw1/status").expect("a retained status");
    assert!(String::from_utf8_lossy(&state).contains("\"offline\""), "{}", String::from_utf8_lossy(&state));
    scene.site.start();
    let told = crew.finish();
    scene.hub.wait_for_events(1600);
    let state = observer::retained(scene.broker.plain(), "siteward/v1/st-marys/st-marys-gw1/status").expect("a retained status");
    assert!(String::from_utf8_lossy(&state).contains("\"online\""), "{}", String::from_utf8_lossy(&state));
    wait::wait_until("everything is settled", wait::EVENTUALLY, || scene.site.try_queued() == Some(0));
    scene.site.stop();
    scene.hub.stop();
    assert_eq!(scene.hub.audit().broken_promises(&told, |_, _| 700), Vec::<String>::new());
}

/// I2: the last will tells the hub when the agent is gone without a word.
#[test]
fn a_killed_agent_is_reported_offline_by_its_last_will() {
    let mut scene = Scene::new(mosquitto::Options::default(), |_| {});
    scene.start();
    let topic = "siteward/v1/st-marys/st-marys-gw1/status";
    let says = |scene: &Scene, word: &str| {
        let state = observer::retained(scene.broker.plain(), topic).unwrap_or_default();
        canary::contains(&state, word.as_bytes())
    };
    wait::wait_until("online", wait::EVENTUALLY, || says(&scene, "\"online\""));
    scene.site.kill();
    wait::wait_until("offline", wait::EVENTUALLY, || says(&scene, "\"offline\""));
}

/// I2: a broker that is not there, or does not take our certificate, costs nothing but time.
#[test]
fn a_broker_that_refuses_our_certificate_costs_nothing_but_time() {
    let mut scene = Scene::new(mosquitto::Options::default(), |_| {});
    let stranger = Pki::new(&scene.directory.path().join("foreign"), "foreign CA").client("st-marys-gw1");
    let Uplink::Tls { port, ca, client } = scene.site.configuration.uplink.clone() else { panic!("a TLS uplink") };
    scene.site.configuration.uplink = Uplink::Tls { port, ca: ca.clone(), client: stranger };
    scene.site.write_configuration();
    scene.start();
    let told = Crew::start(&Plan::new(scene.site.addr(), 2, 50)).finish();
    wait::wait_until("a condition about the uplink", wait::EVENTUALLY, || scene.site.conditions().iter().any(|c| c.starts_with("uplink_")));
    assert_ne!(scene.site.status()["uplink"]["state"], "connected");
    assert!(!scene.site.status()["uplink"]["last_error"].is_null());
    assert_eq!(scene.site.try_queued(), Some(100));
    scene.site.stop();
    scene.site.configuration.uplink = Uplink::Tls { port, ca, client };
    scene.site.write_configuration();
    scene.site.start();
    scene.hub.wait_for_events(100);
    scene.site.stop();
    scene.hub.stop();
    assert_eq!(scene.hub.audit().broken_promises(&told, |_, _| 700), Vec::<String>::new());
}

/// I7: a broker whose certificate another CA signed is not spoken to.
#[test]
fn a_broker_with_a_foreign_certificate_gets_nothing() {
    let mut scene = Scene::new(mosquitto::Options::default(), |_| {});
    let foreign = Pki::new(&scene.directory.path().join("foreign"), "foreign CA");
    let Uplink::Tls { port, client, .. } = scene.site.configuration.uplink.clone() else { panic!("a TLS uplink") };
    scene.site.configuration.uplink = Uplink::Tls { port, ca: foreign.ca.clone(), client };
    scene.site.write_configuration();
    scene.site.start();
    assert!(scene.site.wire().exchange(&message::build(1, 1, 700)).expect("an answer").positive());
    wait::wait_until("a condition about the uplink", wait::EVENTUALLY, || scene.site.conditions().iter().any(|c| c.starts_with("uplink_")));
    wait::wait_until("an attempt", wait::EVENTUALLY, || scene.link.connections() > 0);
    assert_ne!(scene.site.status()["uplink"]["state"], "connected");
    assert_eq!(scene.site.try_queued(), Some(1));
}

/// I2: a link that swallows everything is noticed, given up and tried again.
#[test]
fn a_half_open_link_loses_nothing() {
    let mut scene = Scene::new(mosquitto::Options::default(), |_| {});
    scene.start();
    let mut wire = scene.site.wire();
    assert!(wire.exchange(&message::build(1, 1, 700)).expect("an answer").positive());
    scene.hub.wait_for_events(1);
    scene.link.set(harness::link::Weather::Hole);
    for number in 2..=200 {
        assert!(wire.exchange(&message::build(1, number, 700)).expect("capture goes on").positive());
    }
    std::thread::sleep(Duration::from_secs(if harness::long() { 75 } else { 1 }));
    scene.link.set(harness::link::Weather::Fair);
    scene.hub.wait_for_events(200);
    scene.site.stop();
    scene.hub.stop();
    let told = [Told { connection: 1, acknowledged: (1..=200).collect(), ..Told::default() }];
    assert_eq!(scene.hub.audit().broken_promises(&told, |_, _| 700), Vec::<String>::new());
}
