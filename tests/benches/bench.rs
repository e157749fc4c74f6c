//! Speed in ratios, measured in one run on one machine. Prints, asserts nothing.
//!
//! | measured | against |
//! |---|---|
//! | durable answers per second, p50 and p99, at 1, 16 and 64 connections | [`PlainLog`]: the least that could answer after `fdatasync` (group commit, nothing else), same senders, same disk |
//! | forwarded events per second | a bare rumqttc QoS 1 publisher, same Mosquitto, same TLS settings, same in-flight: of the same payloads alone, and of the same packets (with an event's attributes) |
//! | resident memory and cold start | - |
//!
//! The two sides of a ratio take turns, and medians of the rounds are compared, because other load comes and goes.
//! Run: `cargo build --profile fast --bins && cargo bench -p siteward-tests --profile fast`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::link::Weather;
use harness::message;
use harness::mosquitto;
use harness::pki::Identity;
use harness::plain_log::PlainLog;
use harness::scene::Scene;
use harness::sender::{Crew, Plan};
use harness::site::{Configuration, Site};
use harness::wait;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
use rumqttc::v5::{AsyncClient, Client, Event, MqttOptions};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

const ROUNDS: usize = 3;
const SIZE: usize = 700;
const IN_FLIGHT: usize = 100;
const FORWARDED: u64 = 20_000;

/// One measurement of durable answers.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    per_second: f64,
    p50_us: u32,
    p99_us: u32,
}

fn main() {
    // `cargo test` runs benches too, to see that they work; it does not want to wait for them
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let directory = tempfile::Builder::new().prefix("bench-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on disk");
    println!("{}", machine());
    println!("durable answers, {SIZE} bytes a message, medians of {ROUNDS} rounds");
    println!("connections | siteward/s | p50 us | p99 us | plain log/s | p50 us | p99 us | ratio");
    for (connections, each) in [(1, 2_000), (16, 1_000), (64, 500)] {
        let (mut ours, mut plain) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let path = directory.path().join(format!("{connections}-{round}"));
            ours.push(siteward_answers(&path, connections, each));
            plain.push(plain_answers(&path.join("plain"), connections, each));
        }
        let (a, b) = (median(&mut ours), median(&mut plain));
        println!(
            "{connections} | {:.0} | {} | {} | {:.0} | {} | {} | {:.2}",
            a.per_second,
            a.p50_us,
            a.p99_us,
            b.per_second,
            b.p50_us,
            b.p99_us,
            a.per_second / b.per_second
        );
    }
    forwarding();
    cold_start(&directory.path().join("cold"));
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")).map_or("unknown CPU", |m| m.trim_start_matches([' ', '\t', ':']));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("machine: {cores} x {model}, Linux {}", kernel.trim())
}

fn measure(addr: std::net::SocketAddr, connections: usize, each: u64) -> Answers {
    // a few first, so that files exist and connections are warm
    Crew::start(&Plan { first_connection: 500, ..Plan::new(addr, connections, 20) }).finish();
    let began = Instant::now();
    let told = Crew::start(&Plan::new(addr, connections, each)).finish();
    let seconds = began.elapsed().as_secs_f64();
    let mut latencies: Vec<u32> = told.iter().flat_map(|t| t.latencies_us.iter().copied()).collect();
    latencies.sort_unstable();
    let at = |percent: usize| latencies.get(latencies.len() * percent / 100).copied().unwrap_or(0);
    Answers { per_second: latencies.len() as f64 / seconds, p50_us: at(50), p99_us: at(99) }
}

fn siteward_answers(directory: &Path, connections: usize, each: u64) -> Answers {
    let mut site = Site::new(directory, Configuration::new(directory));
    site.start();
    measure(site.addr(), connections, each)
}

fn plain_answers(path: &Path, connections: usize, each: u64) -> Answers {
    let log = PlainLog::start(path);
    measure(log.addr(), connections, each)
}

fn median(rounds: &mut [Answers]) -> Answers {
    rounds.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    rounds[rounds.len() / 2]
}

/// A backlog drained through the agent, and the same number of the same payloads through a bare publisher.
fn forwarding() {
    let mut scene = Scene::new(mosquitto::Options { persistence: false, packet_bytes_max: 0 }, |c| {
        c.uplink_lines.push(format!("in_flight = {IN_FLIGHT}"));
        c.uplink_lines.push("confirm = \"puback\"".into());
    });
    let (mut ours, mut payloads, mut packets) = (Vec::new(), Vec::new(), Vec::new());
    let identity = scene.identity("bare");
    for round in 0..ROUNDS {
        scene.link.set(Weather::Down);
        if round == 0 {
            scene.site.start();
        }
        let plan = Plan { window: 32, first_connection: round * 20, size: |_, _| SIZE, ..Plan::new(scene.site.addr(), 20, FORWARDED / 20) };
        Crew::start(&plan).finish();
        let counter = count(scene.broker.plain().port(), "siteward/v1/+/+/event/+", FORWARDED);
        scene.link.set(Weather::Fair);
        ours.push(counter.join().expect("a count"));
        wait::wait_until("settled", wait::EVENTUALLY, || scene.site.try_queued() == Some(0));

        for (rates, attributes) in [(&mut payloads, false), (&mut packets, true)] {
            let counter = count(scene.broker.plain().port(), "bare/#", FORWARDED);
            publish_bare(&scene, &identity, attributes);
            rates.push(counter.join().expect("a count"));
        }
    }
    let [a, b, c] = [&mut ours, &mut payloads, &mut packets].map(|rates| {
        rates.sort_by(f64::total_cmp);
        rates[ROUNDS / 2]
    });
    println!("forwarding, {SIZE} bytes, TLS, QoS 1, in flight {IN_FLIGHT}, medians of {ROUNDS} rounds of {FORWARDED}");
    println!(
        "siteward {a:.0}/s; bare rumqttc {b:.0}/s of payloads alone, ratio {:.2}; {c:.0}/s of the same packets, ratio {:.2}",
        a / b,
        a / c
    );
    println!(
        "resident after forwarding: {} KiB, peak {} KiB",
        scene.site.process().resident_kib(),
        scene.site.process().resident_peak_kib()
    );
}

/// Counts arrivals as a QoS 1 subscriber on the plain listener; arrivals per second between the first and the last.
fn count(port: u16, filter: &'static str, enough: u64) -> std::thread::JoinHandle<f64> {
    let (ready, started) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::spawn(move || {
        let mut options = MqttOptions::new(format!("counter-{}", harness::net::free_port()), "127.0.0.1", port);
        options.set_max_packet_size(Some(1 << 24));
        let (client, mut connection) = Client::new(options, 16);
        client.subscribe(filter, QoS::AtLeastOnce).expect("room for one request");
        let (mut seen, mut first) = (0u64, Instant::now());
        for event in connection.iter() {
            match event.expect("the broker stays") {
                Event::Incoming(Packet::SubAck(_)) => ready.send(()).expect("somebody waits"),
                Event::Incoming(Packet::Publish(_)) => {
                    if seen == 0 {
                        first = Instant::now();
                    }
                    seen += 1;
                    if seen == enough {
                        break;
                    }
                }
                _ => {}
            }
        }
        seen.saturating_sub(1) as f64 / first.elapsed().as_secs_f64()
    });
    started.recv_timeout(Duration::from_secs(30)).expect("a subscription");
    thread
}

/// rumqttc as it comes: `publish().await` in one task, the event loop in another, TLS by a bridge with the settings of the agent.
fn publish_bare(scene: &Scene, identity: &Identity, attributes: bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let connector = connector(scene, identity);
    // the way the agent goes
    let broker = scene.link.addr();
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            let (mut plain, _) = listener.accept().await.expect("the client");
            plain.set_nodelay(true).expect("a socket option");
            let outward = tokio::net::TcpStream::connect(broker).await.expect("the broker");
            outward.set_nodelay(true).expect("a socket option");
            let name = ServerName::try_from("127.0.0.1").expect("a name");
            let mut tls = connector.connect(name, outward).await.expect("a handshake");
            // ends with the client
            let _ = tokio::io::copy_bidirectional(&mut plain, &mut tls).await;
        });
        let mut options = MqttOptions::new("bare", "127.0.0.1", port);
        options.set_outgoing_inflight_upper_limit(IN_FLIGHT as u16);
        let (client, mut events) = AsyncClient::new(options, IN_FLIGHT);
        tokio::spawn(async move {
            for number in 1..=FORWARDED {
                let body = message::build(1, number, SIZE);
                let topic = "bare/v1/st-marys/st-marys-gw1/event/adt";
                let sent = if attributes {
                    let properties =
                        PublishProperties { user_properties: attributes_like_an_event(number), ..PublishProperties::default() };
                    client.publish_with_properties(topic, QoS::AtLeastOnce, false, body, properties).await
                } else {
                    client.publish(topic, QoS::AtLeastOnce, false, body).await
                };
                sent.expect("the loop runs");
            }
            std::future::pending::<()>().await;
        });
        let mut acknowledged = 0;
        while acknowledged < FORWARDED {
            if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.expect("the broker stays") {
                acknowledged += 1;
            }
        }
    });
}

/// As many, and as long, as an event's.
fn attributes_like_an_event(number: u64) -> Vec<(String, String)> {
    let wide = |len: usize| format!("{number:0len$}");
    let attributes = [
        ("specversion", "1.0".into()),
        ("id", wide(70)),
        ("source", wide(40)),
        ("type", "siteward.message.raw.v1".into()),
        ("time", wide(24)),
        ("sequence", number.to_string()),
        ("incarnation", wide(32)),
        ("chain", wide(64)),
        ("recorddigest", wide(64)),
        ("nonce", wide(32)),
        ("itemindex", "0".into()),
        ("itemcount", "1".into()),
        ("lane", "critical".into()),
        ("stage", "live".into()),
        ("controlid", wide(12)),
    ];
    attributes.map(|(name, value): (&str, String)| (name.to_owned(), value)).into()
}

fn connector(scene: &Scene, identity: &Identity) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&scene.pki.ca).expect("the CA")).expect("a usable CA");
    let chain = vec![CertificateDer::from_pem_file(&identity.cert).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(&identity.key).expect("a key");
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .expect("a client identity");
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

/// From the start of the process to the first accepted connection, with an empty spool and with a backlog after a kill.
fn cold_start(directory: &Path) {
    let mut site = Site::new(directory, Configuration::new(directory));
    let mut starts = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        site.spawn();
        wait::wait_until("listening", wait::SOON, || harness::net::listening(site.addr()));
        starts.push(began.elapsed().as_millis());
        if starts.len() == 1 {
            let plan = Plan { window: 32, ..Plan::new(site.addr(), 16, 2_000) };
            Crew::start(&plan).finish();
        }
        site.kill();
    }
    site.start();
    println!("cold start to listening: {starts:?} ms (the first with an empty spool, the others on 32,000 records after SIGKILL)");
    println!("resident with 32,000 records waiting: {} KiB", site.process().resident_kib());
}
