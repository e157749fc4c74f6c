//! The gateway of the demonstration: `siteward run` as a process of its own with a configuration of its own, as it would run at a site, and
//! `siteward status --json` to ask it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// After SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
pub const FEED: &str = "or-supply";

/// The part of the status that is shown.
#[derive(Debug, Deserialize)]
pub struct Status {
    pub uplink: Uplink,
    pub feeds: Vec<Feed>,
}

#[derive(Debug, Deserialize)]
pub struct Uplink {
    pub state: String,
}

#[derive(Debug, Deserialize)]
pub struct Feed {
    pub queued: u64,
}

impl Status {
    pub fn queued(&self) -> u64 {
        self.feeds.iter().map(|feed| feed.queued).sum()
    }
}

/// The running agent. Dropping it kills the process: what it has acknowledged is on disk.
#[derive(Debug)]
pub struct Gateway {
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    child: Child,
}

fn configuration(spool: &Path, feed: SocketAddr, endpoint: SocketAddr) -> String {
    format!(
        r#"[gateway]
site = "demo-hospital"
id = "demo-gw1"
timezone = "America/New_York"

[spool]
path = "{}"
max_bytes = "64MiB"

[uplink]
endpoints = ["mqtt://{endpoint}"]
allow_plaintext = true

[[feed]]
id = "{FEED}"
lane = "critical"
stage = "test"
forward = "raw"
phi = "allowed"
[feed.mllp]
listen = "{feed}"
"#,
        spool.display()
    )
}

impl Gateway {
    /// Writes the configuration and starts the agent in `directory`.
    pub fn start(directory: &Path, feed: SocketAddr, endpoint: SocketAddr) -> io::Result<Self> {
        let (config, log) = (directory.join("siteward.toml"), directory.join("siteward.log"));
        std::fs::write(&config, configuration(&directory.join("spool"), feed, endpoint))?;
        let program = std::env::current_exe()?;
        let output = std::fs::File::create(&log)?;
        let child = Command::new(&program)
            .args(["run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .env_remove("NOTIFY_SOCKET")
            .spawn()?;
        Ok(Self { program, config, log, child })
    }

    /// Asks for the status; `None` while the agent does not answer yet. An error: it has ended.
    pub async fn status(&mut self) -> io::Result<Option<Status>> {
        if let Some(ended) = self.child.try_wait()? {
            return Err(io::Error::other(format!("the agent ended ({ended})")));
        }
        let (program, config) = (self.program.clone(), self.config.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let status = Command::new(program).args(["status", "--json", "--config"]).arg(config).stdin(Stdio::null()).output()?;
            Ok(status.status.success().then_some(status.stdout))
        });
        let answer: Option<Vec<u8>> = asked.await.map_err(io::Error::other)?.map_err(|error: io::Error| error)?;
        Ok(answer.and_then(|json| serde_json::from_slice(&json).ok()))
    }

    /// The end of its log, for a demonstration that failed.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// SIGTERM, and waits. Blocking.
    pub fn stop(mut self) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the agent has no process id"))?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            match self.child.try_wait()? {
                Some(ended) if ended.success() => return Ok(()),
                Some(ended) => return Err(io::Error::other(format!("the agent ended with {ended}"))),
                None if Instant::now() > deadline => return Err(io::Error::other("the agent did not stop within 15 s")),
                None => std::thread::sleep(super::TICK),
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
