//! Many gateways: real agents, one process each, behind one Mosquitto that lets each one at its own topics only.
//!
//! Each has a certificate of its own (its common name is its id), a small spool, and a local file without feeds: those come with documents.
//! They are started in batches, so that the machine stays usable; all of them end with the fleet.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Client, Event, MqttOptions};
use serde_json::Value;
use siteward::hub::config::{lint, sign};
use siteward::hub::keys::{self, Passphrase};

use crate::document;
use crate::mosquitto::{self, Mosquitto};
use crate::net;
use crate::pki::{Identity, Pki};
use crate::scene::Directory;
use crate::site::{Configuration, Feed, Site, Uplink};
use crate::wait;

/// Agents that are started at once.
const BATCH: usize = 15;
/// Gateways of one site.
const PER_SITE: usize = 10;
/// The group that all of them report.
pub const GROUP: &str = "fleet";

/// What every gateway gets, but for its own values.
const TEMPLATE: &str = r#"
[document]
schema_version = 1
revision = @REVISION@
gateway = "{{ gateway }}"
author = "kim"
reason = "the feed of {{ site }}"
[rollout]
trial = "10s"
confirm = "bound"
[[feed]]
id = "or-usage"
lane = "critical"
stage = "live"
forward = "raw"
phi = "allowed"
[feed.mllp]
listen = "127.0.0.1:{{ port }}"
"#;

/// Fields are dropped in this order: processes first, their directory last.
#[derive(Debug)]
pub struct Fleet {
    pub sites: Vec<Site>,
    pub watcher: Watcher,
    pub broker: Mosquitto,
    pub desk: Identity,
    pub hub: Identity,
    pub pki: Pki,
    /// Ports of feeds whose gateway does not listen yet: nobody else may get them meanwhile.
    held: BTreeMap<usize, TcpListener>,
    pub directory: Directory,
}

pub fn gateway(number: usize) -> String {
    format!("fleet-gw{number:04}")
}

pub fn site(number: usize) -> String {
    format!("site-{:03}", number / PER_SITE)
}

/// What the broker lets each one do: a gateway at its own topics in the right direction, the receiver and the desk at those of all.
fn access(count: usize) -> String {
    let mut text = String::from(
        "user desk\ntopic readwrite siteward/v1/#\n\n\
         user hub\ntopic read siteward/v1/#\ntopic write siteward/v1/+/+/receipt\n",
    );
    for number in 0..count {
        let own = format!("siteward/v1/{}/{}", site(number), gateway(number));
        // Writing to a string does not fail.
        let _ = write!(text, "\nuser {}\n", gateway(number));
        for name in [
            "event/+",
            "outcome/+",
            "checkpoint",
            "status",
            "config/reported",
            "command/result",
            "certificate/request",
            "audit",
            "preflight",
        ] {
            let _ = writeln!(text, "topic write {own}/{name}");
        }
        for name in ["receipt", "config/desired", "command", "certificate/issued"] {
            let _ = writeln!(text, "topic read {own}/{name}");
        }
    }
    text
}

impl Fleet {
    /// So many gateways, none of which runs yet.
    pub fn new(count: usize) -> Self {
        let directory = Directory::new();
        let pki = Pki::new(&directory.path().join("pki"), "harness CA");
        let list = directory.path().join("access");
        std::fs::write(&list, access(count)).expect("the access list is written");
        // Written once a minute: by default the harness has everything written each second, which would be most of what an idle broker does.
        // And not 0 messages queued, the harness's other default: with it Mosquitto closes the connection of whoever has a publish refused.
        let lines = format!("acl_file {}\nautosave_interval 60\nmax_queued_messages 100000\n", list.display());
        let broker = Mosquitto::start_with(&directory.path().join("broker"), &pki, mosquitto::Options::default(), &lines);
        let watcher = Watcher::start(broker.plain());
        let sites = (0..count).map(|number| Self::member(directory.path(), &pki, broker.tls().port(), number)).collect();
        let (desk, hub) = (pki.client("desk"), pki.client("hub"));
        Self { sites, watcher, broker, desk, hub, pki, held: BTreeMap::new(), directory }
    }

    /// Gives every gateway the port of a feed, and holds it until [`Fleet::release`].
    pub fn assign_ports(&mut self) {
        for (number, site) in self.sites.iter_mut().enumerate() {
            let (feed, held) = wait::wait_for("a port that nobody takes", wait::SOON, || {
                let feed = Feed::new("or-usage", "critical");
                TcpListener::bind(feed.addr()).ok().map(|held| (feed, held))
            });
            site.configuration.feeds = vec![feed];
            self.held.insert(number, held);
        }
    }

    /// Their gateways may listen now.
    pub fn release(&mut self, numbers: &[usize]) {
        for number in numbers {
            self.held.remove(number);
        }
    }

    /// The documents of a revision, as a desk makes them: one template, a row with its own port for each gateway, rendered, signed. Their directory.
    pub fn documents(&self, revision: u64, port: impl Fn(usize) -> u16) -> PathBuf {
        let at = |name: &str| self.directory.path().join(format!("{name}-{revision}"));
        let (template, table, out, signed) = (at("template"), at("table"), at("rendered"), at("signed"));
        std::fs::write(&template, TEMPLATE.replace("@REVISION@", &revision.to_string())).expect("the template is written");
        let rows = (0..self.sites.len()).map(|n| format!("{},{},{}\n", site(n), gateway(n), port(n)));
        std::fs::write(&table, format!("site,gateway,port\n{}", rows.collect::<String>())).expect("the table is written");
        std::fs::create_dir_all(&signed).expect("a directory");
        let run = |command: &mut Command| {
            let output = command.output().expect("the program runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let tool = || Command::new(crate::program("siteward-hub"));
        run(tool().args(["config", "render"]).arg(&template).arg("--table").arg(&table).arg("--out").arg(&out));
        let files = (0..self.sites.len()).map(|number| out.join(format!("{}.toml", gateway(number))));
        run(tool().args(["config", "sign"]).args(files).arg("--key").arg(document::keys().join("openssl.key")).arg("--out").arg(&signed));
        signed
    }

    /// `siteward-hub rollout VERB …`, as the desk.
    pub fn rollout(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = self.desk_command(&["rollout", verb], &self.desk);
        command.arg("--state").arg(self.directory.path().join("rollouts")).args(arguments);
        command
    }

    fn member(directory: &Path, pki: &Pki, port: u16, number: usize) -> Site {
        let home = directory.join(gateway(number));
        let mut configuration = Configuration::new(&home);
        (configuration.site, configuration.gateway) = (site(number), gateway(number));
        configuration.max_bytes = "16MiB".into();
        configuration.uplink = Uplink::Tls { port, ca: pki.ca.clone(), client: pki.client(&gateway(number)) };
        configuration.feeds = Vec::new();
        configuration.gateway_lines.push(format!("groups = [\"{GROUP}\"]"));
        configuration.sections = vec![document::trust()];
        Site::new(&home, configuration)
    }

    /// The list of all gateways, as a desk has it.
    pub fn list(&self) -> PathBuf {
        let path = self.directory.path().join("sites.csv");
        let rows: Vec<String> = (0..self.sites.len()).map(|number| format!("{},{}\n", site(number), gateway(number))).collect();
        std::fs::write(&path, format!("site,gateway\n{}", rows.concat())).expect("the list is written");
        path
    }

    /// Starts these, a batch at a time, and waits until the broker has each one's status.
    pub fn start(&mut self, numbers: &[usize]) {
        for batch in numbers.chunks(BATCH) {
            for &number in batch {
                self.sites[number].spawn();
            }
            let all = || batch.iter().all(|&number| self.watcher.is_online(number));
            let online = wait::try_until(wait::EVENTUALLY, all);
            let missing = || batch.iter().copied().find(|&number| !self.watcher.is_online(number));
            assert!(online, "not online: {}", missing().map(|number| self.story(number)).unwrap_or_default());
        }
    }

    /// All that is known of a gateway, for whoever has to find out why it is not where it should be.
    pub fn story(&self, number: usize) -> String {
        let site = &self.sites[number];
        let listening = site.configuration.feeds.first().map(|feed| (feed.port, net::listening(feed.addr())));
        format!(
            "{}: the broker keeps status {}\nreported {}\nit says of itself {}\nits feed's port listens: {listening:?}; load {}\nits log ends with:\n{}",
            gateway(number),
            self.watcher.said(number, "status"),
            self.watcher.reported(number),
            site.try_status().unwrap_or_default(),
            std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
            site.log_tail(),
        )
    }

    /// A document for one gateway: one feed at this port.
    pub fn document(&self, number: usize, revision: u64, port: u16) -> PathBuf {
        let id = gateway(number);
        let feed = Feed { port, ..Feed::new("or-usage", "critical") };
        let text = format!(
            "[document]\nschema_version = 1\nrevision = {revision}\ngateway = \"{id}\"\nauthor = \"kim\"\nreason = \"test\"\n\
             [rollout]\ntrial = \"10s\"\nconfirm = \"bound\"\n\
             [[feed]]\nid = {:?}\nlane = \"critical\"\nstage = \"live\"\nforward = \"raw\"\nphi = \"allowed\"\n\
             [feed.mllp]\nlisten = \"127.0.0.1:{}\"\n",
            feed.id, feed.port
        );
        let file = self.directory.path().join(format!("{id}-{revision}.toml"));
        std::fs::write(&file, text).expect("the document is written");
        let linted = lint(&file, None).unwrap_or_else(|faults| panic!("{faults}"));
        let (signer, _) = keys::open(&document::keys().join("openssl.key"), &Passphrase::usual()).expect("a private key");
        let signed = file.with_extension("dsse");
        std::fs::write(&signed, sign(&linted, &[signer]).expect("it is signed")).expect("the envelope is written");
        signed
    }

    /// Runs the desk's program with the broker and this identity among its arguments.
    pub fn desk(&self, arguments: &[&str], who: &Identity) -> Output {
        self.desk_command(arguments, who).output().expect("the program runs")
    }

    pub fn desk_command(&self, arguments: &[&str], who: &Identity) -> Command {
        let mut command = Command::new(crate::program("siteward-hub"));
        command.args(arguments).arg("--broker").arg(format!("mqtts://{}", self.broker.tls()));
        command.arg("--ca").arg(&self.pki.ca).arg("--cert").arg(&who.cert).arg("--key").arg(&who.key);
        command
    }

    /// Publishes an envelope for a gateway, as `who`; what came of it.
    pub fn push(&self, number: usize, envelope: &Path, who: &Identity) -> Output {
        let (site, gateway) = (site(number), gateway(number));
        self.desk(&["config", "push", "--site", &site, "--gateway", &gateway, &envelope.display().to_string()], who)
    }

    /// What `siteward-hub fleet --json` says.
    pub fn view(&self, arguments: &[&str]) -> Value {
        let list = self.list().display().to_string();
        let output = self.desk(&[&["fleet", "--json", "--expect", &list], arguments].concat(), &self.desk);
        assert!(output.status.success(), "fleet fails: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

/// Contents that were published for gateways on `config/desired`, each once, by topic: what it holds, and how often it came.
type Desired = BTreeMap<String, Vec<(Vec<u8>, u64)>>;

/// What gateways said last, by topic, and what was published for them; listens on the broker's plain port.
#[derive(Debug)]
pub struct Watcher {
    said: Arc<Mutex<BTreeMap<String, Value>>>,
    desired: Arc<Mutex<Desired>>,
    messages: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Watcher {
    fn start(broker: SocketAddr) -> Self {
        let watcher = Self { said: Arc::default(), desired: Arc::default(), messages: Arc::default(), stop: Arc::default() };
        let (said, messages, stop) = (Arc::clone(&watcher.said), Arc::clone(&watcher.messages), Arc::clone(&watcher.stop));
        let desired = Arc::clone(&watcher.desired);
        std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let mut options = MqttOptions::new(format!("watcher-{}", net::free_port()), broker.ip().to_string(), broker.port());
                options.set_max_packet_size(Some(16 << 20));
                let (client, mut connection) = Client::new(options, 16);
                for name in ["status", "config/reported", "config/desired"] {
                    client.subscribe(format!("siteward/v1/+/+/{name}"), QoS::AtLeastOnce).expect("room for three requests");
                }
                while !stop.load(Ordering::SeqCst) {
                    match connection.recv_timeout(Duration::from_millis(200)) {
                        Ok(Ok(Event::Incoming(Packet::Publish(publish)))) => {
                            messages.fetch_add(1, Ordering::SeqCst);
                            let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                            if topic.ends_with("/desired") {
                                let mut desired = desired.lock().unwrap_or_else(PoisonError::into_inner);
                                note(desired.entry(topic).or_default(), &publish.payload, publish.retain);
                                continue;
                            }
                            let value = serde_json::from_slice(&publish.payload).unwrap_or_default();
                            said.lock().unwrap_or_else(PoisonError::into_inner).insert(topic, value);
                        }
                        Ok(Ok(_)) | Err(rumqttc::v5::RecvTimeoutError::Timeout) => {}
                        Ok(Err(_)) | Err(rumqttc::v5::RecvTimeoutError::Disconnected) => break,
                    }
                }
            }
        });
        watcher
    }

    fn said(&self, number: usize, name: &str) -> Value {
        let topic = format!("siteward/v1/{}/{}/{name}", site(number), gateway(number));
        self.said.lock().unwrap_or_else(PoisonError::into_inner).get(&topic).cloned().unwrap_or_default()
    }

    pub fn is_online(&self, number: usize) -> bool {
        self.said(number, "status")["state"] == "online"
    }

    /// Since when it is online, as it says.
    pub fn since(&self, number: usize) -> Value {
        self.said(number, "status")["since"].clone()
    }

    /// The contents that were published for it: revision (0: nothing in its place), and how often.
    pub fn published(&self, number: usize) -> Vec<(u64, u64)> {
        let topic = format!("siteward/v1/{}/{}/config/desired", site(number), gateway(number));
        let desired = self.desired.lock().unwrap_or_else(PoisonError::into_inner);
        desired.get(&topic).into_iter().flatten().map(|(content, times)| (document::revision(content), *times)).collect()
    }

    pub fn reported(&self, number: usize) -> Value {
        self.said(number, "config/reported")
    }

    /// Runs this revision, and nothing newer is on trial.
    pub fn runs(&self, number: usize, revision: u64) -> bool {
        let reported = self.reported(number);
        reported["running"]["revision"] == revision && reported["tried"]["state"] == "committed"
    }

    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::SeqCst)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// Counts a publish by its content; one that the broker only kept is known already, or was published before anybody looked on.
fn note(contents: &mut Vec<(Vec<u8>, u64)>, payload: &[u8], kept: bool) {
    match contents.iter_mut().find(|(content, _)| content == payload) {
        Some((_, times)) => *times += u64::from(!kept),
        None => contents.push((payload.to_vec(), 1)),
    }
}

/// Memory of a process that is its own, and what it takes with its share of what is shared, in KiB.
pub fn memory_kib(pid: u32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse().ok()).unwrap_or(0)
    };
    (field("Private_Dirty:") + field("Private_Clean:"), field("Pss:"))
}

/// Bytes on disk below a directory.
pub fn disk_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            // gone meanwhile
            Err(_) => 0,
        })
        .sum()
}
