//! Some gateways at one broker, the desk's tool beside them, and somebody who looks on at what is published for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use harness::document::{keys, revision};
use harness::hub::{Door, Hub};
use harness::mosquitto::{Mosquitto, Options};
use harness::observer;
use harness::pki::Pki;
use harness::scene::Directory;
use harness::site::{Configuration, Site, Uplink};
use harness::wait;
use serde_json::Value;
use siteward::hub::config::{lint, sign};
use siteward::hub::keys::{self as hub_keys, Passphrase};

/// What was published on `config/desired`: by gateway, the contents in order.
type Published = Arc<Mutex<BTreeMap<String, Vec<Vec<u8>>>>>;

/// Fields are dropped in this order: processes first, their directory last.
#[derive(Debug)]
pub struct East {
    pub sites: Vec<Site>,
    _hub: Hub,
    onlooker: Onlooker,
    pub broker: Mosquitto,
    pub directory: Directory,
}

#[derive(Debug)]
struct Onlooker {
    published: Published,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Onlooker {
    fn at(broker: std::net::SocketAddr) -> Self {
        let (published, over) = (Published::default(), Arc::new(AtomicBool::new(false)));
        let (into, until) = (Arc::clone(&published), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                let mut taken = 0;
                observer::collect(broker, "siteward/v1/+/+/config/desired", Duration::from_secs(3600), |seen| {
                    let mut published = into.lock().expect("nobody panics with it");
                    for publish in &seen[taken..] {
                        let gateway = publish.topic.split('/').nth(3).unwrap_or_default().to_owned();
                        published.entry(gateway).or_default().push(publish.payload.clone());
                    }
                    taken = seen.len();
                    until.load(Ordering::Relaxed)
                });
            }
        });
        Self { published, over, thread: Some(thread) }
    }
}

impl Drop for Onlooker {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of it would have been seen by whoever asked what was published.
            let _ = thread.join();
        }
    }
}

impl East {
    /// So many gateways, running and seen by the broker.
    pub fn with(gateways: usize, options: Options) -> Self {
        Self::trusting(gateways, options, &harness::document::trust())
    }

    /// The same, with this `[trust]`.
    pub fn trusting(gateways: usize, options: Options, trust: &str) -> Self {
        let directory = Directory::new();
        let pki = Pki::new(&directory.path().join("pki"), "harness CA");
        let broker = Mosquitto::start(&directory.path().join("broker"), &pki, options);
        let onlooker = Onlooker::at(broker.plain());
        let mut hub = Hub::new(&directory.path().join("hub"), Door::Plain { broker: broker.plain() });
        hub.start();
        let site = |number: usize| {
            let place = directory.path().join(format!("site-{number}"));
            let mut configuration = Configuration::new(&place);
            configuration.gateway = format!("gw{number}");
            configuration.max_bytes = "256MiB".into();
            configuration.uplink =
                Uplink::Tls { port: broker.tls().port(), ca: pki.ca.clone(), client: pki.client(&configuration.gateway) };
            configuration.gateway_lines.push("groups = [\"east\"]".into());
            configuration.sections.push(trust.to_owned());
            let mut site = Site::new(&place, configuration);
            site.start();
            site
        };
        let sites = (1..=gateways).map(site).collect();
        let east = Self { sites, _hub: hub, onlooker, broker, directory };
        (0..gateways).for_each(|index| east.is_online(index, true));
        east
    }

    pub fn topic(index: usize, name: &str) -> String {
        format!("siteward/v1/st-marys/gw{}/{name}", index + 1)
    }

    pub fn is_online(&self, index: usize, online: bool) {
        let wanted = if online { "online" } else { "offline" };
        wait::wait_until("the gateway is online, or is not", wait::EVENTUALLY, || {
            self.kept(index, "status")["state"] == wanted && (!online || self.kept(index, "config/reported").is_object())
        });
    }

    /// What the broker keeps of a gateway.
    pub fn kept(&self, index: usize, name: &str) -> Value {
        let payload = observer::retained(self.broker.plain(), &Self::topic(index, name)).unwrap_or_default();
        serde_json::from_slice(&payload).unwrap_or_default()
    }

    pub fn runs(&self, index: usize) -> Value {
        self.sites[index].status()["config"]["revision"].clone()
    }

    /// The document of a revision for every gateway: its own feed, and one more on this port (0: a free one of its own). Signed, in a directory.
    pub fn documents(&self, revision: u64, port: u16) -> PathBuf {
        let out = self.directory.path().join(format!("documents-{revision}"));
        std::fs::create_dir_all(&out).expect("a directory");
        let (signer, _) = hub_keys::open(&keys().join("openssl.key"), &Passphrase::usual()).expect("the key of the fixtures");
        for (index, site) in self.sites.iter().enumerate() {
            let own = site.configuration.feeds[0].port;
            let other = if port == 0 { harness::net::free_port() } else { port };
            let feed = |id: &str, port: u16| {
                format!(
                    "[[feed]]\nid = {id:?}\nlane = \"critical\"\nstage = \"live\"\nforward = \"raw\"\nphi = \"allowed\"\n\
                     [feed.mllp]\nlisten = \"127.0.0.1:{port}\"\n"
                )
            };
            let text = format!(
                "[document]\nschema_version = 1\nrevision = {revision}\ngateway = \"gw{}\"\nauthor = \"kim\"\nreason = \"test\"\n\
                 [rollout]\ntrial = \"10s\"\nconfirm = \"bound\"\n{}{}",
                index + 1,
                feed("or-usage", own),
                feed("lab", other),
            );
            let file = out.join(format!("gw{}.toml", index + 1));
            std::fs::write(&file, text).expect("the document is written");
            let linted = lint(&file, None).unwrap_or_else(|faults| panic!("{faults}"));
            let envelope = sign(&linted, std::slice::from_ref(&signer)).expect("it is signed");
            std::fs::write(file.with_extension("dsse"), envelope).expect("the envelope is written");
        }
        out
    }

    /// Any command of the desk's tool that needs no broker.
    pub fn tool(arguments: &[&str]) -> Output {
        Command::new(harness::program("siteward-hub")).args(arguments).output().expect("it runs")
    }

    /// The same, with one.
    pub fn at_broker(&self, arguments: &[&str]) -> Output {
        let broker = format!("mqtt://{}", self.broker.plain());
        Command::new(harness::program("siteward-hub")).args(arguments).args(["--broker", &broker]).output().expect("it runs")
    }

    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// `siteward-hub rollout …`
    pub fn rollout(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(harness::program("siteward-hub"));
        command.args(["rollout", verb, "--broker", &format!("mqtt://{}", self.broker.plain())]);
        command.arg("--state").arg(self.state()).args(arguments);
        command
    }

    /// Every content that was published for a gateway, but the empty one that takes it away.
    pub fn published(&self, gateway: &str) -> Vec<Vec<u8>> {
        let published = self.onlooker.published.lock().expect("nobody panics with it");
        published.get(gateway).into_iter().flatten().filter(|payload| !payload.is_empty()).cloned().collect()
    }

    pub fn taken_away(&self, gateway: &str) -> bool {
        let published = self.onlooker.published.lock().expect("nobody panics with it");
        published.get(gateway).and_then(|all| all.last()).is_some_and(Vec::is_empty)
    }

    /// Nobody was ever given two contents for one revision.
    pub fn one_content_for_each_revision(&self) -> usize {
        let mut publishes = 0;
        for index in 0..self.sites.len() {
            let all = self.published(&format!("gw{}", index + 1));
            publishes += all.len();
            let mut contents: BTreeMap<u64, BTreeSet<Vec<u8>>> = BTreeMap::new();
            for envelope in all {
                contents.entry(revision(&envelope)).or_default().insert(envelope);
            }
            assert!(contents.values().all(|contents| contents.len() == 1), "gw{}: several contents for one revision", index + 1);
        }
        publishes
    }
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The report at the end of `--json`.
pub fn report(output: &Output) -> Value {
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = lines.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|_| panic!("no report: {}", text(output)))
}

/// The state of each gateway in a report.
pub fn states(report: &Value) -> BTreeMap<String, String> {
    let gateways = report["gateways"].as_array().cloned().unwrap_or_default();
    let named = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    gateways.iter().map(|gateway| (named(&gateway["gateway"]), named(&gateway["state"]))).collect()
}
