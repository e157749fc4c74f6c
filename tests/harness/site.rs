//! The gateway under test: a directory with its configuration, spool and log, and the agent's process.
//!
//! The agent is killed without warning ([`Site::kill`]), stopped politely ([`Site::stop`]) and started again on the same spool as often as a
//! test likes; everything it says goes to one log.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::net;
use crate::pki::Identity;
use crate::process::{Process, tail};
use crate::sender::Wire;
use crate::wait;

/// One MLLP feed as it will be written.
#[derive(Clone, Debug)]
pub struct Feed {
    pub id: String,
    pub lane: &'static str,
    /// The address it listens on; senders come by loopback all the same.
    pub host: &'static str,
    pub port: u16,
    /// Further lines of `[feed.mllp]`.
    pub mllp: Vec<String>,
}

impl Feed {
    pub fn new(id: &str, lane: &'static str) -> Self {
        Self { id: id.to_owned(), lane, host: "127.0.0.1", port: net::free_port(), mllp: Vec::new() }
    }

    pub fn addr(&self) -> SocketAddr {
        net::loopback(self.port)
    }
}

/// Where the hub is.
#[derive(Clone, Debug)]
pub enum Uplink {
    /// Mutual TLS.
    Tls { port: u16, ca: PathBuf, client: Identity },
    /// `mqtt://` in the clear.
    Plain { port: u16 },
    /// An endpoint on which nobody listens.
    Nowhere,
}

/// What `siteward.toml` will say.
#[derive(Clone, Debug)]
pub struct Configuration {
    pub site: String,
    pub gateway: String,
    pub spool: PathBuf,
    pub max_bytes: String,
    pub uplink: Uplink,
    /// Further lines of `[gateway]`.
    pub gateway_lines: Vec<String>,
    /// Further lines of `[spool]`.
    pub spool_lines: Vec<String>,
    /// Further lines of `[uplink]`.
    pub uplink_lines: Vec<String>,
    pub feeds: Vec<Feed>,
    /// Further sections, behind the feeds.
    pub sections: Vec<String>,
}

impl Configuration {
    /// One feed, a spool in `directory`, receipts, and no hub anywhere.
    pub fn new(directory: &Path) -> Self {
        Self {
            site: "st-marys".into(),
            gateway: "st-marys-gw1".into(),
            spool: directory.join("spool"),
            max_bytes: "4GiB".into(),
            uplink: Uplink::Nowhere,
            gateway_lines: Vec::new(),
            spool_lines: Vec::new(),
            uplink_lines: Vec::new(),
            feeds: vec![Feed::new("or-usage", "critical")],
            sections: Vec::new(),
        }
    }

    pub fn text(&self) -> String {
        let uplink = match &self.uplink {
            Uplink::Tls { port, ca, client } => format!(
                "endpoints = [\"mqtts://127.0.0.1:{port}\"]\nca = {}\ncert = {}\nkey = {}\n",
                quoted(ca),
                quoted(&client.cert),
                quoted(&client.key)
            ),
            Uplink::Plain { port } => format!("endpoints = [\"mqtt://127.0.0.1:{port}\"]\nallow_plaintext = true\n"),
            Uplink::Nowhere => format!("endpoints = [\"mqtt://127.0.0.1:{}\"]\nallow_plaintext = true\n", net::free_port()),
        };
        let mut text = format!(
            "[gateway]\nsite = {:?}\nid = {:?}\ntimezone = \"America/New_York\"\n{}\n\n\
             [spool]\npath = {}\nmax_bytes = {:?}\n{}\n\n\
             [uplink]\n{uplink}{}\n",
            self.site,
            self.gateway,
            self.gateway_lines.join("\n"),
            quoted(&self.spool),
            self.max_bytes,
            self.spool_lines.join("\n"),
            self.uplink_lines.join("\n"),
        );
        for feed in &self.feeds {
            let Feed { id, lane, host, port, mllp } = feed;
            let section = format!(
                "\n[[feed]]\nid = {id:?}\nlane = {lane:?}\nstage = \"live\"\nforward = \"raw\"\nphi = \"allowed\"\n\
                 [feed.mllp]\nlisten = \"{host}:{port}\"\n{}\n",
                mllp.join("\n")
            );
            text.push_str(&section);
        }
        text.extend(self.sections.iter().map(String::as_str));
        text
    }
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

#[derive(Debug)]
pub struct Site {
    pub directory: PathBuf,
    pub configuration: Configuration,
    process: Option<Process>,
}

impl Site {
    /// Writes the configuration; starts nothing yet.
    pub fn new(directory: &Path, configuration: Configuration) -> Self {
        std::fs::create_dir_all(directory).expect("a directory for the site");
        let site = Self { directory: directory.to_path_buf(), configuration, process: None };
        site.write_configuration();
        site
    }

    pub fn write_configuration(&self) {
        std::fs::write(self.config_file(), self.configuration.text()).expect("the configuration is written");
    }

    pub fn config_file(&self) -> PathBuf {
        self.directory.join("siteward.toml")
    }

    pub fn log_file(&self) -> PathBuf {
        self.directory.join("agent.log")
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    /// Address of the first feed.
    pub fn addr(&self) -> SocketAddr {
        self.configuration.feeds[0].addr()
    }

    /// Starts the agent and does not wait.
    pub fn spawn(&mut self) {
        let mut command = Command::new(crate::program("siteward"));
        command.arg("run").arg("--config").arg(self.config_file());
        self.spawn_with(&mut command);
    }

    /// Starts the agent by a command of one's own (for wrappers).
    pub fn spawn_with(&mut self, command: &mut Command) {
        self.process = Some(Process::start("siteward", command, &self.log_file()));
    }

    /// Starts the agent and waits until every feed accepts connections.
    pub fn start(&mut self) {
        self.spawn();
        self.listening();
    }

    /// Waits until every feed accepts connections.
    pub fn listening(&mut self) {
        let addresses: Vec<SocketAddr> = self.configuration.feeds.iter().map(Feed::addr).collect();
        let process = self.process.as_mut().expect("the agent was started");
        let up = wait::try_until(wait::EVENTUALLY, || !process.running() || addresses.iter().all(|&a| net::listening(a)));
        assert!(up && process.running(), "the agent does not listen; its log ends with:\n{}", process.log_tail());
    }

    /// Writes the configuration and has the agent read it again; what it says came of it.
    pub fn reload(&mut self) -> String {
        self.write_configuration();
        self.hang_up()
    }

    /// Has the agent read its file again, as it is; what it says came of it.
    pub fn hang_up(&mut self) -> String {
        const ENDS: [&str; 4] =
            ["the feeds are as the file says", "it goes on as it was", "the feeds stay as they were", "nothing was changed"];
        let before = self.log().len();
        self.process().hang_up();
        let said = || self.log().get(before..).unwrap_or_default().to_owned();
        let done = wait::try_until(wait::SOON, || ENDS.iter().any(|end| said().contains(end)));
        assert!(done, "nothing came of SIGHUP; the log ends with:\n{}", self.log_tail());
        said()
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the agent was started")
    }

    pub fn running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::running)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGTERM; the agent must end by itself with exit code 0.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("the agent was started");
        process.terminate();
        let status = process.ended(Duration::from_mins(1));
        assert_eq!(status.code(), Some(0), "SIGTERM ends the agent with 0; its log ends with:\n{}", process.log_tail());
    }

    /// Runs a command of the agent's program to its end.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(crate::program("siteward"));
        command.args(arguments).arg("--config").arg(self.config_file());
        command.output().expect("the program runs")
    }

    /// `siteward status --json`; `None` while nobody answers.
    pub fn try_status(&self) -> Option<Value> {
        let output = self.command(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success())
    }

    pub fn status(&self) -> Value {
        wait::wait_for("an answer to `siteward status --json`", wait::SOON, || self.try_status())
    }

    /// The status of one feed.
    pub fn feed_status(&self, feed: &str) -> Value {
        let status = self.status();
        let feeds = status["feeds"].as_array().cloned().unwrap_or_default();
        feeds.into_iter().find(|f| f["id"] == feed).unwrap_or_else(|| panic!("feed {feed} is not in the status: {status}"))
    }

    /// Records of all feeds that wait; `None` while nobody answers.
    pub fn try_queued(&self) -> Option<u64> {
        let status = self.try_status()?;
        status["feeds"].as_array()?.iter().map(|f| f["queued"].as_u64()).sum()
    }

    /// Codes of the conditions that hold now.
    pub fn conditions(&self) -> Vec<String> {
        let status = self.status();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().filter_map(|c| c["code"].as_str().map(str::to_owned)).collect()
    }

    /// Waits for a condition.
    pub fn condition(&self, code: &str, within: Duration) {
        let raised = wait::try_until(within, || self.conditions().iter().any(|c| c == code));
        assert!(raised, "condition {code} is not raised; those that are: {:?}; the log ends with:\n{}", self.conditions(), self.log_tail());
    }

    pub fn log_tail(&self) -> String {
        tail(&self.log_file())
    }

    /// A connection to the first feed.
    pub fn wire(&self) -> Wire {
        wait::wait_for("a connection to the feed", wait::SOON, || Wire::connect(self.addr(), wait::SOON).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_toml_with_the_agreed_names() {
        let mut configuration = Configuration::new(Path::new("/nowhere"));
        configuration.feeds.push(Feed { mllp: vec!["frame_timeout = \"2s\"".into()], ..Feed::new("cabinet", "normal") });
        configuration.uplink_lines.push("confirm = \"puback\"".into());
        let value: toml::Table = toml::from_str(&configuration.text()).unwrap();
        assert_eq!(value["gateway"]["id"].as_str(), Some("st-marys-gw1"));
        assert_eq!(value["uplink"]["confirm"].as_str(), Some("puback"));
        assert_eq!(value["feed"][1]["mllp"]["frame_timeout"].as_str(), Some("2s"));
    }
}
