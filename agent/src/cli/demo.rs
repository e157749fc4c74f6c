//! `siteward demo`: the whole way of a message on one machine, in half a minute. No root, no set-up, loopback only.
//!
//! ```text
//!   hospital ── MLLP ──► gateway ──► WAN ──► broker ──► hub
//!   (this process)      (siteward run,  (a relay that   (this process)
//!                        own process)    is switched off)
//! ```
//!
//! 1. Everything starts in a temporary directory on free ports.
//! 2. Messages are sent; each answer and each arrival at the hub is shown.
//! 3. The WAN goes down; messages are still answered, and queue up.
//! 4. It comes back; the queue drains in order.
//! 5. What was sent, acknowledged and received is compared, id by id and byte by byte. The exit code is 0 only if nothing is missing, doubled,
//!    changed or out of order.
//!
//! One deadline over all; on failure the end of the agent's log is shown. The directory is removed in any case.

mod broker;
mod gateway;
mod hospital;
mod wan;

use std::error::Error;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use self::gateway::Gateway;
use self::hospital::{Sample, Sender, sample};
use self::wan::Wan;
use crate::config::settings::Endpoint;
use crate::hub::desk::Summary;
use crate::hub::line::LineKind;
use crate::hub::receive::{self, Options, ReceiveError, Seen};
use crate::record::Incarnation;
use crate::{limits, threads};

const TICK: Duration = Duration::from_millis(50);
const PAUSE: Duration = Duration::from_millis(120);
const START_TIMEOUT: Duration = Duration::from_secs(15);
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(25);
const DEADLINE: Duration = Duration::from_secs(75);
const BEFORE: usize = 10;
const DURING: usize = 20;
/// The status is shown so many times while the queue fills.
const STEPS: usize = 4;
const AFTER: usize = 10;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Runs the demonstration.
pub fn run() -> Result<(), Box<dyn Error>> {
    let directory = Directory::new()?;
    let runtime = threads::runtime(&mut tokio::runtime::Builder::new_multi_thread(), limits::START_THREADS)?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            ended = timeout(DEADLINE, demonstrate(&directory.0)) => {
                ended.unwrap_or_else(|_| Err(format!("not finished after {} s", DEADLINE.as_secs()).into()))
            }
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        }
    });
    // The broker has no stop.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
pub(crate) use self::broker::start as start_broker;

/// A directory that goes when the demonstration ends.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Outcome<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| format!("no random numbers: {error}"))?;
        let name = &Incarnation(random).to_string()[..12];
        let path = std::env::temp_dir().join(format!("siteward-demo-{name}"));
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("siteward demo: {} is left behind: {error}", self.0.display());
        }
    }
}

/// Addresses on loopback that were free a moment ago; held all at once, so that they differ.
fn free_addresses<const N: usize>() -> io::Result<[SocketAddr; N]> {
    let mut held = Vec::new();
    for _ in 0..N {
        held.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
    }
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    for (address, listener) in addresses.iter_mut().zip(&held) {
        *address = listener.local_addr()?;
    }
    Ok(addresses)
}

/// A line for people; a reader that went away is nobody's problem.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

async fn demonstrate(directory: &Path) -> Outcome<()> {
    let [feed, wan_side, broker_side] = free_addresses()?;
    say("siteward demo: hospital ── MLLP ──► gateway ──► WAN ──► broker ──► hub, all on this machine\n");
    broker::start(broker_side)?;
    let wan = Wan::start(wan_side, broker_side).await?;
    let hub = Hub::start(directory, broker_side).await?;
    let gateway = Gateway::start(directory, feed, wan_side)?;
    let mut demo = Demo { gateway, hub, wan, sent: Vec::new(), acknowledged: Vec::new(), received: Vec::new() };
    let shown = demo.show(feed).await;
    if let Err(error) = shown {
        let log = demo.gateway.log();
        return Err(if log.is_empty() { error } else { format!("{error}\nthe agent's last words:\n{log}").into() });
    }
    demo.finish(directory).await
}

/// The hub side, in this process.
struct Hub {
    arrivals: mpsc::Receiver<Seen>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<Vec<Summary>, ReceiveError>>,
}

impl Hub {
    /// Listens when this returns: what a broker gets before somebody wants it is gone, and comes again later, behind what was sent after it.
    async fn start(directory: &Path, broker: SocketAddr) -> Outcome<Self> {
        let endpoint = Endpoint::new(broker.ip().to_string(), broker.port(), false);
        let out = directory.join("events.jsonl");
        let options = Options { endpoint, tls: None, out, client_id: "demo-hub".into(), once_idle: None };
        let (observer, mut arrivals) = mpsc::channel(256);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(receive::receive(options, Some(observer), stopped));
        match timeout(START_TIMEOUT, arrivals.recv()).await {
            Ok(Some(_)) => Ok(Self { arrivals, stop, task }),
            Ok(None) => Err("the hub's receiver ended".into()),
            Err(_) => Err(format!("the hub does not listen after {} s", START_TIMEOUT.as_secs()).into()),
        }
    }
}

struct Demo {
    gateway: Gateway,
    hub: Hub,
    wan: Wan,
    sent: Vec<Sample>,
    acknowledged: Vec<String>,
    /// Control ids as they arrived.
    received: Vec<String>,
}

impl Demo {
    async fn show(&mut self, feed: SocketAddr) -> Outcome<()> {
        self.until("the gateway to connect", START_TIMEOUT, |status| status.uplink.state == "connected").await?;
        let mut sender = Sender::connect(feed).await?;
        say("1. The WAN is up: every message is on disk before it is answered, and at the hub a moment later.\n");
        self.send(&mut sender, BEFORE).await?;
        self.arrive(BEFORE).await?;

        say("\n2. The WAN goes down. The hospital does not notice.\n");
        self.wan.set_up(false);
        self.until("the gateway to notice", START_TIMEOUT, |status| status.uplink.state != "connected").await?;
        for _ in 0..STEPS {
            self.send(&mut sender, DURING / STEPS).await?;
            let queued = self.queued().await?;
            say(&format!("     siteward status: uplink down, {queued:>2} queued on disk  {}", bar(queued)));
        }
        let queued = self.queued().await?;
        if queued < DURING as u64 {
            return Err(format!("{queued} messages are queued, {DURING} were sent during the outage").into());
        }

        say("\n3. The WAN is back. The queue drains in order.\n");
        self.wan.set_up(true);
        self.arrive(BEFORE + DURING).await?;
        self.until("the queue to drain", ARRIVAL_TIMEOUT, |status| status.queued() == 0).await?;
        say(&format!("     siteward status: uplink connected, {} queued", self.queued().await?));

        say("\n4. And on.\n");
        self.send(&mut sender, AFTER).await?;
        self.arrive(BEFORE + DURING + AFTER).await
    }

    /// Sends the next `count` messages, one after the other, each after the answer to the one before.
    async fn send(&mut self, sender: &mut Sender, count: usize) -> Outcome<()> {
        for _ in 0..count {
            let sample = sample(self.sent.len() + 1);
            let answer = sender.send(&sample).await.map_err(|error| format!("sending {}: {error}", sample.control_id))?;
            say(&format!("   hospital ► {} {} ({:<21}) answered {answer}", sample.control_id, sample.kind, sample.what));
            if answer == "AA" {
                self.acknowledged.push(sample.control_id.clone());
            }
            self.sent.push(sample);
            let next = Instant::now() + PAUSE;
            while let Ok(Some(seen)) = timeout_at(next, self.hub.arrivals.recv()).await {
                self.arrived(seen);
            }
            sleep_until(next).await; // also where the receiver has ended
        }
        Ok(())
    }

    /// Waits until `count` events have arrived in all.
    async fn arrive(&mut self, count: usize) -> Outcome<()> {
        let deadline = Instant::now() + ARRIVAL_TIMEOUT;
        while self.received.len() < count {
            match timeout_at(deadline, self.hub.arrivals.recv()).await {
                Ok(Some(seen)) => self.arrived(seen),
                Ok(None) => return Err("the hub's receiver ended".into()),
                Err(_) => return Err(format!("only {} of {count} events arrived at the hub", self.received.len()).into()),
            }
        }
        Ok(())
    }

    fn arrived(&mut self, seen: Seen) {
        let Seen::Written(line) = seen else { return };
        let seq = line.seq.unwrap_or(0);
        match (line.kind, line.control_id) {
            (LineKind::Event, Some(id)) => {
                say(&format!("        hub ◄ {id} as record {seq} of feed {}", gateway::FEED));
                self.received.push(id);
            }
            (
                LineKind::Start
                | LineKind::Open
                | LineKind::Reported
                | LineKind::CertificateRequest
                | LineKind::CommandResult
                | LineKind::Audit,
                _,
            ) => {}
            (kind, _) => say(&format!("        hub ◄ {kind:?} at record {seq}")),
        }
    }

    async fn queued(&mut self) -> Outcome<u64> {
        Ok(self.gateway.status().await?.ok_or("the agent does not answer")?.queued())
    }

    async fn until(&mut self, what: &str, patience: Duration, reached: impl Fn(&gateway::Status) -> bool) -> Outcome<()> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if self.gateway.status().await?.is_some_and(|status| reached(&status)) {
                return Ok(());
            }
            sleep(TICK).await;
        }
        Err(format!("waited {} s for {what}", patience.as_secs()).into())
    }

    /// Stops everything and compares.
    async fn finish(self, directory: &Path) -> Outcome<()> {
        let Self { gateway, hub, wan, sent, acknowledged, .. } = self;
        tokio::task::spawn_blocking(move || gateway.stop()).await??;
        drop(wan);
        // Fails only if the receiver has ended, which the next line tells.
        let _ = hub.stop.send(true);
        let summary = hub.task.await??;
        let received = read_output(&directory.join("events.jsonl"))?;
        let tally = Tally::of(&sent, &acknowledged, &received);
        let named: u64 = summary.iter().flat_map(|feed| &feed.missing).map(|(first, last)| last - first + 1).sum();
        say(&format!("\n{tally}"));
        if tally.is_perfect() && named == 0 { Ok(()) } else { Err("what arrived is not what was sent".into()) }
    }
}

fn bar(length: u64) -> String {
    "█".repeat(usize::try_from(length).unwrap_or(0).min(40))
}

/// The events in the hub's output: control id and bytes, in the order of their lines.
fn read_output(path: &Path) -> Outcome<Vec<(String, Vec<u8>)>> {
    let mut events = Vec::new();
    for line in std::fs::read_to_string(path)?.lines() {
        let line: serde_json::Value = serde_json::from_str(line)?;
        if line["kind"] == "event" {
            let data = base64::engine::general_purpose::STANDARD.decode(line["data_base64"].as_str().unwrap_or(""))?;
            events.push((line["attributes"]["controlid"].as_str().unwrap_or("").to_owned(), data));
        }
    }
    Ok(events)
}

/// What became of the messages.
#[derive(Debug, PartialEq, Eq)]
struct Tally {
    sent: usize,
    acknowledged: usize,
    /// Different ids.
    received: usize,
    missing: usize,
    duplicates: usize,
    changed: usize,
    in_order: bool,
}

impl Tally {
    fn of(sent: &[Sample], acknowledged: &[String], received: &[(String, Vec<u8>)]) -> Self {
        let mut unique: Vec<&str> = Vec::new();
        for (id, _) in received {
            if !unique.contains(&id.as_str()) {
                unique.push(id);
            }
        }
        let missing = acknowledged.iter().filter(|id| !unique.contains(&id.as_str())).count();
        let changed = received.iter().filter(|(id, bytes)| !sent.iter().any(|s| s.control_id == *id && s.bytes == *bytes)).count();
        let order: Vec<&str> = sent.iter().map(|s| s.control_id.as_str()).filter(|id| unique.contains(id)).collect();
        Self {
            sent: sent.len(),
            acknowledged: acknowledged.len(),
            received: unique.len(),
            missing,
            duplicates: received.len() - unique.len(),
            changed,
            in_order: order == unique,
        }
    }

    fn is_perfect(&self) -> bool {
        let same = self.sent == self.acknowledged && self.acknowledged == self.received;
        same && self.missing + self.duplicates + self.changed == 0 && self.in_order
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sent, acknowledged, received, missing, duplicates, changed, in_order } = self;
        write!(f, "sent = acknowledged = received: {sent} = {acknowledged} = {received}, {missing} missing, {duplicates} duplicates")?;
        if *changed > 0 {
            write!(f, ", {changed} changed")?;
        }
        if !in_order {
            f.write_str(", out of order")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(numbers: &[usize]) -> Vec<(String, Vec<u8>)> {
        numbers.iter().map(|n| sample(*n)).map(|s| (s.control_id, s.bytes)).collect()
    }

    #[test]
    fn the_summary_is_perfect_only_if_everything_came_once_unchanged_and_in_order() {
        let sent: Vec<Sample> = (1..=3).map(sample).collect();
        let acknowledged: Vec<String> = sent.iter().map(|s| s.control_id.clone()).collect();
        let tally = |received: &[(String, Vec<u8>)]| Tally::of(&sent, &acknowledged, received);
        let perfect = tally(&received(&[1, 2, 3]));
        assert!(perfect.is_perfect());
        assert_eq!(perfect.to_string(), "sent = acknowledged = received: 3 = 3 = 3, 0 missing, 0 duplicates");
        for bad in [&[1, 2][..], &[1, 2, 3, 3], &[2, 1, 3], &[1, 2, 3, 4]] {
            assert!(!tally(&received(bad)).is_perfect(), "{bad:?}");
        }
        let mut changed = received(&[1, 2, 3]);
        changed[1].1[0] ^= 1;
        assert!(!tally(&changed).is_perfect());
    }
}
