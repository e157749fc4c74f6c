//! A desk with its authority, a broker that knows whom to admit from it alone, and boxes that are nobody yet.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::hub::{Door, Hub};
use crate::mosquitto::Mosquitto;
use crate::net;
use crate::pki::{Identity, Pki};
use crate::process::Process;
use crate::scene::Directory;
use crate::wait;

pub const SITE: &str = "st-marys";

/// The desk, the broker and the receiver. Fields are dropped in this order.
#[derive(Debug)]
pub struct Desk {
    serving: Option<Process>,
    pub hub: Hub,
    pub broker: Mosquitto,
    pub pki: Pki,
    pub directory: Directory,
}

/// What a program said, whether it did what was asked.
#[derive(Debug)]
pub struct Said {
    pub done: bool,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Self { done: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Desk {
    /// Everything runs, nobody is enrolled, nobody is answered yet.
    pub fn new() -> Self {
        let directory = Directory::new();
        let at = directory.path();
        let pki = Pki::new(&at.join("pki"), "hub CA");
        fs::create_dir_all(at.join("broker-files")).expect("a directory");
        fs::create_dir_all(at.join("identities")).expect("a directory");
        fs::create_dir_all(at.join("vault")).expect("a directory");
        fs::write(at.join("words"), "correct horse battery\n").expect("the passphrase is written");
        for arguments in [
            &["keys", "generate", "--out", "vault", "--name", "recovery"][..],
            &["enroll", "init", "--state", "state"],
            &["enroll", "identity", "--state", "state", "--name", "receiver", "--role", "receiver", "--out", "identities"],
            &["enroll", "identity", "--state", "state", "--name", "central-desk", "--role", "desk", "--out", "identities"],
            &["broker", "mosquitto", "--state", "state", "--out", "broker-files"],
        ] {
            let said = Said::from(command(at, arguments).output().expect("the program runs"));
            assert!(said.done, "{arguments:?}: {}", said.err);
        }
        let lines = fs::read_to_string(at.join("broker-files/siteward.conf")).expect("the lines for the broker");
        let files = at.join("broker-files").display().to_string();
        let broker =
            Mosquitto::start_with_listener(&at.join("broker"), &pki.server(), &lines.replace(" broker-files/", &format!(" {files}/")));
        let client = Identity { cert: at.join("identities/receiver.pem"), key: at.join("identities/receiver.key") };
        let door = Door::Tls { broker: broker.tls(), ca: pki.ca.clone(), client };
        let mut hub = Hub::new(&at.join("hub"), door);
        hub.start();
        Self { serving: None, hub, broker, pki, directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `siteward-hub`, in the desk's directory.
    pub fn run(&self, arguments: &[&str]) -> Said {
        command(self.directory.path(), arguments).output().expect("the program runs").into()
    }

    /// The same, which has to work; what it printed.
    pub fn does(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert!(said.done, "{arguments:?}: {}{}", said.out, said.err);
        said.out
    }

    /// A bundle, in a file of this name; with a recovery key, unless `more` says `--no-recovery`, or `--without` a word about it.
    pub fn bundle(&self, gateway: &str, out: &str, more: &[&str]) -> Said {
        let endpoint = format!("mqtts://{}", self.broker.tls());
        let (ca, key) = (self.pki.ca.display().to_string(), crate::document::keys().join("openssl"));
        let (public, private) = (key.with_extension("pub").display().to_string(), key.with_extension("key").display().to_string());
        let arguments = [
            "enroll",
            "--state",
            "state",
            "--site",
            SITE,
            "--gateway",
            gateway,
            "--timezone",
            "America/New_York",
            "--endpoint",
            &endpoint,
            "--ca",
            &ca,
            "--trust",
            &public,
            "--sign-with",
            &private,
            "--out",
            out,
        ];
        let more: Vec<&str> = match more {
            ["--without"] => Vec::new(),
            more if more.contains(&"--no-recovery") => more.to_vec(),
            more => [&["--recovery", "vault/recovery.pub"][..], more].concat(),
        };
        self.run(&[&arguments[..], &more].concat())
    }

    /// The broker gets its files anew, and reads them as a restart does.
    pub fn admit(&mut self) {
        self.does(&["broker", "mosquitto", "--state", "state", "--out", "broker-files"]);
        self.broker.stop();
        self.broker.restart();
    }

    /// How the desk reaches the broker.
    pub fn reach(&self) -> Vec<String> {
        let broker = format!("mqtts://{}", self.broker.tls());
        let ca = self.pki.ca.display().to_string();
        ["--broker", &broker, "--ca", &ca, "--cert", "identities/central-desk.pem", "--key", "identities/central-desk.key"]
            .map(str::to_owned)
            .to_vec()
    }

    /// Boxes are answered from here on.
    pub fn serve(&mut self) {
        let reach = self.reach();
        let mut command = command(self.directory.path(), &["enroll", "serve", "--state", "state"]);
        self.serving = Some(Process::start("the desk", command.args(reach), &self.path("serve.log")));
        wait::wait_until("the desk listens", wait::SOON, || self.told("listening for boxes"));
    }

    /// Whether the desk said this while it served.
    pub fn told(&self, words: &str) -> bool {
        fs::read_to_string(self.path("serve.log")).unwrap_or_default().contains(words)
    }

    /// Publishes a document for a gateway: one MLLP feed on this port.
    pub fn document(&self, gateway: &str, revision: u64, port: u16) {
        let text = format!(
            "[document]\nschema_version = 1\nrevision = {revision}\ngateway = \"{gateway}\"\nauthor = \"kim\"\nreason = \"test\"\n\
             [rollout]\ntrial = \"10s\"\n[[feed]]\nid = \"or-usage\"\nlane = \"critical\"\nstage = \"live\"\nforward = \"raw\"\nphi = \"allowed\"\n\
             [feed.mllp]\nlisten = \"127.0.0.1:{port}\"\n"
        );
        fs::write(self.path("document.toml"), text).expect("the document is written");
        let key = crate::document::keys().join("openssl.key").display().to_string();
        self.does(&["config", "sign", "document.toml", "--key", &key, "--out", "document.dsse"]);
        let reach = self.reach();
        let reach: Vec<&str> = reach.iter().map(String::as_str).collect();
        self.does(&[&["config", "push", "--site", SITE, "--gateway", gateway][..], &reach, &["document.dsse"]].concat());
    }
}

impl Default for Desk {
    fn default() -> Self {
        Self::new()
    }
}

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(crate::program("siteward-hub"));
    command.args(arguments).current_dir(directory).env("SITEWARD_HUB_PASSPHRASE_FILE", directory.join("words"));
    command
}

/// The fingerprint of the key that signs bundles here.
pub fn fingerprint() -> String {
    use sha2::Digest as _;
    let pem = fs::read_to_string(crate::document::keys().join("openssl.pub")).expect("the public key");
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, body).expect("base64");
    sha2::Sha256::digest(der).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// A machine with siteward installed.
#[derive(Debug)]
pub struct Box_ {
    agent: Option<Process>,
    pub directory: PathBuf,
    /// What systemd would hand over to it.
    pub credentials: Option<PathBuf>,
}

impl Box_ {
    pub fn new(directory: PathBuf) -> Self {
        fs::create_dir_all(directory.join("etc")).expect("a directory for the box");
        Self { agent: None, directory, credentials: None }
    }

    fn program(&self) -> Command {
        let mut command = Command::new(crate::program("siteward"));
        if let Some(directory) = &self.credentials {
            command.env("CREDENTIALS_DIRECTORY", directory);
        }
        command
    }

    pub fn config(&self) -> PathBuf {
        self.directory.join("etc/siteward.toml")
    }

    /// `siteward enroll` with this bundle, to its end or to be killed.
    pub fn enrolling(&self, bundle: &Path, more: &[&str]) -> Command {
        let mut command = self.program();
        command.arg("enroll").arg(bundle).arg("--config").arg(self.config()).arg("--spool").arg(self.directory.join("spool"));
        if !more.contains(&"--wait") {
            command.args(["--wait", "60s"]);
        }
        command.args(more);
        command
    }

    pub fn enroll(&self, bundle: &Path, more: &[&str]) -> Said {
        let trust = fingerprint();
        self.enrolling(bundle, &[&["--trust", &trust], more].concat()).output().expect("the program runs").into()
    }

    /// Runs a command of the agent's program to its end.
    pub fn command(&self, arguments: &[&str]) -> Said {
        let mut command = self.program();
        command.args(arguments).arg("--config").arg(self.config());
        command.output().expect("the program runs").into()
    }

    pub fn start(&mut self) {
        let mut command = self.program();
        command.arg("run").arg("--config").arg(self.config());
        self.agent = Some(Process::start("siteward", &mut command, &self.directory.join("agent.log")));
    }

    pub fn kill(&mut self) {
        self.agent = None;
    }

    pub fn process(&mut self) -> &mut Process {
        self.agent.as_mut().expect("the agent was started")
    }

    pub fn log_tail(&self) -> String {
        crate::process::tail(&self.directory.join("agent.log"))
    }

    pub fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.command(&["status", "--json"]).out).unwrap_or_default()
    }

    pub fn connects(&self) {
        let there = wait::try_until(wait::EVENTUALLY, || self.status()["uplink"]["state"] == "connected");
        assert!(there, "the uplink does not come up; the log ends with:\n{}", self.log_tail());
    }

    pub fn listens(&self, port: u16) {
        let there = wait::try_until(wait::EVENTUALLY, || net::listening(net::loopback(port)));
        assert!(there, "the feed of the document does not listen; the log ends with:\n{}", self.log_tail());
    }

    /// The directories of its enrolments.
    pub fn enrolled(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.directory.join("etc/enrolled")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }
}
