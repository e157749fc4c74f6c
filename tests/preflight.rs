//! `siteward preflight` and HTTP proxies, against a real Mosquitto: each step that can fail is named, with somebody to ask; what passes leaves
//! nothing behind; and an agent delivers through a proxy.

use std::process::Command;
use std::time::Duration;

use harness::link::{Link, Weather};
use harness::mosquitto::{Mosquitto, Options};
use harness::observer;
use harness::pki::Pki;
use harness::proxy::{Manner, Proxy};
use harness::scene::Scene;
use harness::sender::{Crew, Plan};
use harness::site::{Configuration, Uplink};
use harness::wait;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Client, Event, MqttOptions};
use serde_json::Value;

/// `kim:s3cret-canary`
const PROOF: &str = "a2ltOnMzY3JldC1jYW5hcnk=";
const PASSWORD: &str = "s3cret-canary";

struct Flight {
    code: Option<i32>,
    report: Value,
    text: String,
}

impl Flight {
    /// Outcomes by step, of one endpoint.
    fn outcome(&self, step: &str) -> &str {
        let steps = self.report["endpoints"][0]["steps"].as_array().expect("an endpoint has steps");
        steps.iter().find(|found| found["step"] == step).and_then(|found| found["outcome"].as_str()).unwrap_or("not reached")
    }

    fn said(&self, step: &str) -> &str {
        let steps = self.report["endpoints"][0]["steps"].as_array().expect("an endpoint has steps");
        steps.iter().find(|found| found["step"] == step).and_then(|found| found["text"].as_str()).unwrap_or_default()
    }

    /// It fails at this step, the last one, with these words, and asks this of somebody.
    fn fails(&self, step: &str, words: &str, to: &str, asked: &str) {
        assert_eq!(self.code, Some(1), "{}", self.text);
        let steps = self.report["endpoints"][0]["steps"].as_array().expect("an endpoint has steps");
        let last = steps.last().expect("at least one");
        assert_eq!((last["step"].as_str(), last["outcome"].as_str()), (Some(step), Some("failed")), "{}", self.text);
        assert!(self.said(step).contains(words), "{words} is not in: {}", self.said(step));
        let ticket = &self.report["endpoints"][0]["ticket"];
        assert_eq!(ticket["to"], to, "{}", self.text);
        assert!(ticket["asked"].as_str().is_some_and(|text| text.contains(asked)), "{asked} is not in: {ticket}");
        assert_eq!(ticket["source"], "127.0.0.1", "{ticket}");
    }
}

/// Runs it twice: as JSON, and for people.
fn preflight(scene: &Scene) -> Flight {
    let credentials = scene.directory.path().join("credentials");
    std::fs::create_dir_all(&credentials).expect("a directory");
    std::fs::write(credentials.join("uplink-proxy"), format!("kim:{PASSWORD}\n")).expect("written");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(harness::program("siteward"));
        command.arg("preflight").args(arguments).arg("--config").arg(scene.site.config_file()).env("CREDENTIALS_DIRECTORY", &credentials);
        command.output().expect("the program runs")
    };
    let output = run(&["--json"]);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let text = format!("{report}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains(PASSWORD) && !text.contains(PROOF), "I7: {text}");
    Flight { code: output.status.code(), report, text }
}

fn scene(adjust: impl FnOnce(&mut Configuration)) -> Scene {
    Scene::new(Options::default(), adjust)
}

/// Through a proxy, to an endpoint that only it knows.
fn proxied(scene: &mut Scene, proxy: &Proxy, endpoint: &str) {
    let lines = &mut scene.site.configuration.uplink_lines;
    *lines = vec![format!("proxy = \"{}\"", proxy.url())];
    let text = scene.site.configuration.text();
    let direct = format!("mqtts://127.0.0.1:{}", scene.link.port());
    std::fs::write(scene.site.config_file(), text.replace(&direct, endpoint)).expect("written");
}

/// Publishes something that is not retained.
fn publish(broker: &Mosquitto, topic: &str, payload: &str) {
    let (client, mut connection) = Client::new(MqttOptions::new("central-it", "127.0.0.1", broker.plain().port()), 4);
    client.try_publish(topic, QoS::AtLeastOnce, false, payload.to_owned()).expect("the channel is empty");
    wait::wait_until("the broker has it", wait::SOON, || {
        matches!(connection.recv_timeout(Duration::from_secs(1)), Ok(Ok(Event::Incoming(Packet::PubAck(_)))))
    });
}

#[test]
fn everything_passes_before_the_service_ever_ran_and_nothing_is_left_behind() {
    let mut scene = scene(|_| {});
    let flight = preflight(&scene);
    assert_eq!(flight.code, Some(0), "{}", flight.text);
    for step in ["route", "tcp", "tls", "mutual_tls", "connect", "subscribe", "publish", "packet_limit"] {
        assert_eq!(flight.outcome(step), "good", "{step}: {}", flight.text);
    }
    assert_eq!((flight.outcome("proxy"), flight.outcome("clock")), ("skipped", "not_known"));
    assert!(flight.said("tls").contains("subject CN=server; issuer CN=harness CA"), "{}", flight.said("tls"));
    assert!(flight.said("connect").contains("no session from before"), "{}", flight.said("connect"));
    assert!(!scene.site.configuration.spool.exists(), "it makes no spool");
    assert!(preflight(&scene).said("connect").contains("no session from before"), "the session it made ended with it");

    // What waits for the agent in its session is still there behind a preflight, and the agent's status too.
    scene.start();
    wait::wait_until("the agent is connected", wait::EVENTUALLY, || scene.site.status()["uplink"]["state"] == "connected");
    scene.site.stop();
    publish(&scene.broker, "siteward/v1/st-marys/st-marys-gw1/receipt", "{}");
    let flight = preflight(&scene);
    assert_eq!(flight.code, Some(0), "{}", flight.text);
    assert!(flight.said("connect").contains("the session from before is there"), "{}", flight.said("connect"));
    let status = observer::collect(scene.broker.plain(), "siteward/v1/+/+/status", wait::SOON, |seen| !seen.is_empty());
    assert!(status[0].retained, "the retained status stays");
    scene.site.start();
    wait::wait_until("what waited reaches the agent", wait::EVENTUALLY, || {
        scene.site.log().contains("a message on the receipt topic was ignored")
    });
    println!("preflight: 11 steps to a broker with mutual TLS, session and retained status as before");
}

#[test]
fn each_refusal_of_a_proxy_is_a_failed_step_with_its_own_sentence() {
    let mut scene = scene(|_| {});
    let proxy = Proxy::start(scene.broker.tls(), Manner::Fair);
    proxied(&mut scene, &proxy, "mqtts://localhost:8883");
    let flight = preflight(&scene);
    assert_eq!((flight.code, flight.outcome("proxy")), (Some(0), "good"), "{}", flight.text);
    assert_eq!(proxy.asked(), ["CONNECT localhost:8883 HTTP/1.1"]);
    let cases = [
        (Manner::Refuses("HTTP/1.1 403 Forbidden"), "forbids the connection (403)", "allow CONNECT to localhost:8883 from 127.0.0.1"),
        (Manner::Refuses("HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM"), "it asks for NTLM; siteward can do Basic only", "admit 127.0.0.1"),
        (Manner::Asks(PROOF), "wants authentication (407), it asks for Basic; set user:password", "an account for it (Basic)"),
        (Manner::Refuses("HTTP/1.1 502 Bad Gateway"), "cannot reach the broker itself (502)", "let the proxy itself reach localhost:8883"),
        (Manner::Refuses("SSH-2.0-OpenSSH"), "does not answer like an HTTP proxy", "allow CONNECT"),
        (Manner::Endless, "answers with a header of more than", "allow CONNECT"),
        (Manner::Closes, "closed the connection instead of answering CONNECT", "allow CONNECT"),
        (Manner::Hangs, "does not answer in time while waiting for the answer to CONNECT", "allow CONNECT"),
    ];
    let count = cases.len();
    for (manner, words, asked) in cases {
        proxy.set(manner);
        preflight(&scene).fails("proxy", words, "proxy", asked);
    }
    proxy.set(Manner::Refuses("HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT"));
    assert_eq!(preflight(&scene).outcome("proxy"), "failed", "bytes behind the header: that is no tunnel");
    proxy.set(Manner::Dates("Thu, 01 Jan 2026 00:00:00 GMT"));
    preflight(&scene).fails("clock", "before the proxy's", "network", "a time server");
    println!("proxy: {count} ways to refuse a tunnel, each with its own sentence");
}

#[test]
fn a_device_that_inspects_tls_is_recognised_by_its_issuer() {
    let mut scene = scene(|_| {});
    let device = Pki::new(&scene.directory.path().join("device"), "Zscaler Root CA");
    let proxy = Proxy::start(scene.broker.plain(), Manner::Ends(device.server(), None));
    proxied(&mut scene, &proxy, "mqtts://localhost:8883");
    let flight = preflight(&scene);
    flight.fails("tls", "subject CN=server; issuer CN=Zscaler Root CA", "network", "exempt localhost:8883 from TLS inspection");
    assert!(
        flight.said("tls").contains("not our CA (ours: CN=harness CA): a device in between ends TLS and inspects it"),
        "{}",
        flight.text
    );
    assert!(flight.said("tls").contains("holds \"zscaler\""), "{}", flight.text);

    let other = Pki::new(&scene.directory.path().join("other"), "harness CA");
    proxy.set(Manner::Ends(other.server(), None));
    preflight(&scene).fails("tls", "in the name of our CA, but not by its key", "broker", "the certificate of the CA");
    println!("inspection: named by issuer and product; a CA made anew is told apart");
}

#[test]
fn mqtt_on_443_is_told_by_alpn() {
    let mut scene = scene(|_| {});
    let front = scene.pki.server();
    let proxy = Proxy::start(scene.broker.plain(), Manner::Ends(front.clone(), Some("mqtt")));
    proxied(&mut scene, &proxy, "mqtts://localhost:443");
    let flight = preflight(&scene);
    assert_eq!((flight.code, flight.outcome("publish")), (Some(0), "good"), "{}", flight.text);
    assert_eq!(flight.outcome("mutual_tls"), "skipped", "nobody asked for a certificate");
    proxy.set(Manner::Ends(front, Some("h2")));
    let flight = preflight(&scene);
    flight.fails("tls", "NoApplicationProtocol", "network", "let TLS to localhost:443 pass");
    assert!(flight.report["endpoints"][0]["ticket"]["protocol"].as_str().is_some_and(|text| text.contains("ALPN mqtt")), "{}", flight.text);
    println!("port 443: ALPN mqtt, and a listener that wants another name is named");
}

#[test]
fn what_lies_between_here_and_the_broker_is_named() {
    let mut scene = scene(|_| {});
    let direct = scene.site.configuration.text();
    let instead = |scene: &Scene, endpoint: &str| {
        let text = direct.replace(&format!("mqtts://127.0.0.1:{}", scene.link.port()), endpoint);
        std::fs::write(scene.site.config_file(), text).expect("written");
    };
    instead(&scene, "mqtts://no-such-host.invalid:8883");
    let flight = preflight(&scene);
    assert_eq!((flight.code, flight.outcome("name")), (Some(1), "failed"), "{}", flight.text);
    scene.link.set(Weather::Down);
    instead(&scene, &format!("mqtts://127.0.0.1:{}", scene.link.port()));
    preflight(&scene).fails("tcp", "refuses connections", "network", "allow outbound TCP from 127.0.0.1 to 127.0.0.1");
    scene.link.set(Weather::Hole);
    preflight(&scene).fails("tls", "no answer in time while waiting for the TLS handshake", "network", "pass unchanged");
    scene.link.set(Weather::Fair);
    instead(&scene, &format!("mqtt://127.0.0.1:{}", scene.broker.plain().port()));
    let text = std::fs::read_to_string(scene.site.config_file()).expect("there");
    std::fs::write(scene.site.config_file(), text.replace("[uplink]", "[uplink]\nallow_plaintext = true")).expect("written");
    let flight = preflight(&scene);
    assert_eq!((flight.code, flight.outcome("tls"), flight.outcome("publish")), (Some(0), "skipped", "good"), "{}", flight.text);
    std::fs::write(scene.site.config_file(), "[gateway]\n").expect("written");
    let output = scene.site.command(&["preflight"]);
    assert_eq!(output.status.code(), Some(78), "a configuration that is none");
    scene.site.kill();
    println!("line: name, tcp, tls, clear text; a faulty configuration is 78");
}

#[test]
fn what_the_broker_refuses_is_named() {
    let mut scene = scene(|_| {});
    let Uplink::Tls { client, .. } = scene.site.configuration.uplink.clone() else { panic!("the scene has TLS") };
    let foreign = Pki::new(&scene.directory.path().join("elsewhere"), "another CA").client("st-marys-gw1");
    let (cert, key) = (std::fs::read(&client.cert).expect("there"), std::fs::read(&client.key).expect("there"));
    std::fs::copy(foreign.cert, &client.cert).expect("copied");
    std::fs::copy(foreign.key, &client.key).expect("copied");
    preflight(&scene).fails("mutual_tls", "does not accept our certificate", "broker", "accept the certificate of this gateway");
    std::fs::write(&client.cert, cert).expect("written");
    std::fs::write(&client.key, key).expect("written");

    let file = scene.directory.path().join("broker/mosquitto.conf");
    let rules = scene.directory.path().join("rules");
    let before = std::fs::read_to_string(&file).expect("the broker's configuration");
    let ruled = format!("use_identity_as_username true\nacl_file {}\n", rules.display());
    let configured = |scene: &mut Scene, lines: &str, further: &str| {
        std::fs::write(&rules, lines).expect("written");
        std::fs::write(&file, before.replace("use_identity_as_username true\n", &ruled).replace("log_dest", &format!("{further}log_dest")))
            .expect("written");
        scene.broker.restart();
    };
    configured(&mut scene, "pattern read siteward/#\n", "");
    preflight(&scene).fails("publish", "NotAuthorized", "broker", "publish below siteward/v1/st-marys/st-marys-gw1/");
    configured(&mut scene, "pattern readwrite siteward/#\n", "max_packet_size 100000\n");
    preflight(&scene).fails("packet_limit", "takes packets of 100000 bytes", "broker", "a maximum packet size of at least");
    configured(&mut scene, "pattern readwrite siteward/#\n", "");
    assert_eq!(preflight(&scene).code, Some(0));
    println!("broker: certificate, publish permission and packet limit are named");
}

/// A second client of the gateway's name would throw the agent out.
#[test]
fn a_running_agent_is_left_alone_and_asked() {
    let mut scene = scene(|_| {});
    scene.start();
    wait::wait_until("the agent is connected", wait::EVENTUALLY, || scene.site.status()["uplink"]["state"] == "connected");
    let since = scene.site.status()["uplink"]["since"].clone();
    let flight = preflight(&scene);
    assert_eq!((flight.code, &flight.report["agent_running"]), (Some(0), &Value::Bool(true)), "{}", flight.text);
    assert!(flight.said("connect").contains("the running agent is connected here since"), "{}", flight.text);
    assert_eq!(scene.site.status()["uplink"]["since"], since, "its connection stands");
    scene.link.set(Weather::Down);
    preflight(&scene).fails("tcp", "refuses connections", "network", "allow outbound TCP");
    println!("running agent: its connection stands, and it says what it knows");
}

/// I1, I2, I7: through a proxy that wants a password, through its refusals and through an outage of it; nothing lost, and the password is nowhere.
#[test]
fn an_agent_delivers_through_a_proxy_and_through_its_outage() {
    let mut scene = scene(|_| {});
    let proxy = Proxy::start(scene.broker.tls(), Manner::Asks(PROOF));
    let way = Link::start(proxy.addr());
    let url = format!("http://127.0.0.1:{}", way.port());
    scene.site.configuration.uplink_lines = vec![format!("proxy = \"{url}\""), "proxy_credential = \"uplink-proxy\"".into()];
    scene.site.write_configuration();
    let credentials = scene.directory.path().join("credentials");
    std::fs::create_dir_all(&credentials).expect("a directory");
    std::fs::write(credentials.join("uplink-proxy"), format!("kim:{PASSWORD}\n")).expect("written");
    let flight = preflight(&scene);
    assert_eq!((flight.code, flight.outcome("proxy")), (Some(0), "good"), "{}", flight.text);
    scene.hub.start();
    let mut command = Command::new(harness::program("siteward"));
    command.arg("run").arg("--config").arg(scene.site.config_file()).env("CREDENTIALS_DIRECTORY", &credentials);
    scene.site.spawn_with(&mut command);
    scene.site.listening();
    let crew = Crew::start(&Plan { pause: Duration::from_millis(50), ..Plan::new(scene.site.addr(), 4, 50) });
    scene.hub.wait_for_events(20);
    let last_error = |scene: &Scene| scene.site.status()["uplink"]["last_error"].as_str().unwrap_or_default().to_owned();
    proxy.set(Manner::Refuses("HTTP/1.1 502 Bad Gateway"));
    wait::wait_until("the refusal is told", wait::EVENTUALLY, || {
        last_error(&scene).contains(&format!("the proxy {url} cannot reach the broker itself (502)"))
    });
    scene.site.condition("uplink_down", wait::EVENTUALLY);
    way.set(Weather::Down);
    wait::wait_until("the outage is told", wait::EVENTUALLY, || last_error(&scene).contains("refuses connections"));
    let told = crew.finish();
    assert!(told.iter().all(|told| told.acknowledged.len() == 50), "capture does not wait for the proxy");
    proxy.set(Manner::Asks(PROOF));
    way.set(Weather::Fair);
    scene.hub.wait_for_events(200);
    wait::wait_until("everything is confirmed", wait::EVENTUALLY, || scene.site.try_queued() == Some(0));
    assert_eq!(scene.hub.audit().broken_promises(&told, |_, _| 700), Vec::<String>::new());
    assert!(proxy.asked().iter().all(|line| line == &format!("CONNECT 127.0.0.1:{} HTTP/1.1", scene.link.port())));
    let everything =
        format!("{}{}{}", scene.site.log(), scene.site.status(), String::from_utf8_lossy(&scene.site.command(&["config", "show"]).stdout));
    assert!(!everything.contains(PASSWORD) && !everything.contains(PROOF), "I7: the password is nowhere");
    assert!(everything.contains("proxy_credential = \"uplink-proxy\""), "{everything}");
    println!("proxy: 200 messages through a proxy with a password, a 502 and an outage of it, in {} tunnels", proxy.asked().len());
}
