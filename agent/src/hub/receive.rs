//! The receiver's loop: connect, take batches, write, answer; for ever.
//!
//! ```text
//!   deliveries ─► batch (what is there, up to 512 or 2 ms idle) ─► desk: take, commit (write, fdatasync) ─► acknowledge ─► receipts
//! ```
//!
//! 1. One batch at a time. The broker hears of a delivery only after its line is synced; acknowledgements never wait for order.
//! 2. Full disk, write error: said once per attempt, tried again with back-off for ever; nothing is acknowledged meanwhile, the broker keeps it.
//! 3. A connection that ends is replaced, with jittered back-off that is reset by progress. Unacknowledged deliveries come again and are
//!    recognised as duplicates.
//! 4. Stop: the batch at hand is finished, the ledger saved, DISCONNECT said; the session stays with the broker.
//!
//! `receive` can run in any process; `siteward-hub receive` and the demonstration do.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::connection::{Connection, Delivery, Unanswered, chain};
use super::desk::{Committed, Desk, DeskError, Summary, Written};
use crate::config::settings::Endpoint;
use crate::limits::{
    BACKOFF_MIN, HUB_BACKOFF_MAX, HUB_BATCH_BYTES_MAX, HUB_BATCH_IDLE, HUB_BATCH_MAX, HUB_OUTPUT_RETRY_MAX, HUB_OUTPUT_RETRY_MIN,
    HUB_SNAPSHOT_INTERVAL,
};
use crate::record::Incarnation;
use crate::uplink::tls::TlsFiles;

/// What to receive, from where, and where to.
#[derive(Clone, Debug)]
pub struct Options {
    pub endpoint: Endpoint,
    /// For `mqtts`.
    pub tls: Option<TlsFiles>,
    pub out: PathBuf,
    /// The name of the broker's session; the same at every start, or what was kept for it is lost.
    pub client_id: String,
    /// Stop by itself when nothing arrived for so long.
    pub once_idle: Option<Duration>,
}

/// Longest path of the sockets' directory: a socket's name may have about 100 bytes, the bridge adds up to 30.
const SOCKET_DIRECTORY_BYTES: usize = 70;

/// Why the receiver ended, other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error(transparent)]
    Desk(#[from] DeskError),
    #[error("stopped while the output could not be written; nothing of the last batch was acknowledged, it comes again")]
    StoppedUnwritten(#[source] std::io::Error),
    #[error("cannot make a directory for the connection's socket in {path}: set RUNTIME_DIRECTORY to a directory of this user")]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("writing failed in a way that should not happen; please report this")]
    Panicked,
}

/// A directory of our own for the bridge's sockets, removed at the end: in `RUNTIME_DIRECTORY` where there is one; else beside the output (so
/// that one which was left behind is used again), where that makes a path short enough for a socket and the directory is ours alone; else
/// among the temporary files.
#[derive(Debug)]
pub(super) struct RuntimeDirectory(PathBuf);

impl RuntimeDirectory {
    /// Call with the output locked: nobody else uses the directory beside it.
    pub(super) fn new(out: &Path) -> Result<Self, ReceiveError> {
        let make = |path: &Path| std::fs::DirBuilder::new().mode(0o700).create(path);
        let given = std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from);
        let mut beside = out.as_os_str().to_owned();
        beside.push(".run");
        let beside = PathBuf::from(beside);
        if given.is_none() && beside.as_os_str().len() <= SOCKET_DIRECTORY_BYTES && (make(&beside).is_ok() || is_private(&beside)) {
            return Ok(Self(beside));
        }
        let path = given.unwrap_or_else(std::env::temp_dir).join(format!("siteward-hub-{}", Incarnation(random())));
        make(&path).map(|()| Self(path.clone())).map_err(|source| ReceiveError::Directory { path, source })
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

/// A directory (not a link to one) that only this user can use.
fn is_private(path: &Path) -> bool {
    let user = rustix::process::geteuid().as_raw();
    std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir() && m.uid() == user && m.mode().trailing_zeros() >= 6)
}

impl Drop for RuntimeDirectory {
    fn drop(&mut self) {
        // Nothing of value is in it; one left behind is empty.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a receiver tells whoever looks on.
#[derive(Debug)]
pub enum Seen {
    /// A connection stands, with every subscription: from now on the broker keeps what comes.
    Listening,
    Written(Written),
}

/// Receives until `stop` becomes true (or its sender is gone), or nothing more comes where `once_idle` says so. `observer` gets every line
/// that was written, without content, and is told of every connection; a slow observer slows the receiver.
pub async fn receive(
    options: Options,
    observer: Option<mpsc::Sender<Seen>>,
    stop: watch::Receiver<bool>,
) -> Result<Vec<Summary>, ReceiveError> {
    let out = options.out.clone();
    let desk = spawn_blocking(move || Desk::open(&out)).await.map_err(|_| ReceiveError::Panicked)??;
    let directory = RuntimeDirectory::new(&options.out)?;
    let mut receiver = Receiver { desk: Some(desk), options, observer, stop, progressed: false };
    receiver.run(&directory.0).await?;
    let summary = receiver.blocking(|desk| {
        desk.save();
        desk.summary()
    });
    summary.await
}

struct Receiver {
    /// Away only while a blocking step has it.
    desk: Option<Desk>,
    options: Options,
    observer: Option<mpsc::Sender<Seen>>,
    stop: watch::Receiver<bool>,
    progressed: bool,
}

/// Why serving a connection ended.
enum Served {
    Stop,
    Lost(String),
}

impl Receiver {
    async fn run(&mut self, directory: &Path) -> Result<(), ReceiveError> {
        let mut failures = 0;
        loop {
            self.progressed = false;
            let Options { endpoint, tls, client_id, .. } = &self.options;
            let mut stop = self.stop.clone();
            let opened = tokio::select! {
                opened = Connection::open(endpoint, tls.as_ref(), client_id, directory) => opened,
                () = stopped(&mut stop) => return Ok(()),
            };
            let why = match opened {
                Ok(connection) => {
                    tracing::info!(out = %self.options.out.display(), "receiving from {}", self.options.endpoint);
                    self.tell(Seen::Listening).await;
                    match self.serve(connection).await? {
                        Served::Stop => return Ok(()),
                        Served::Lost(why) => why,
                    }
                }
                Err(why) => why,
            };
            failures = if self.progressed { 0 } else { failures + 1 };
            let wait = backoff(failures);
            tracing::warn!(endpoint = %self.options.endpoint, wait_ms = wait.as_millis() as u64, "not connected: {why}; trying again");
            if timeout(wait, stopped(&mut stop)).await.is_ok() {
                return Ok(());
            }
        }
    }

    async fn serve(&mut self, mut connection: Connection) -> Result<Served, ReceiveError> {
        let mut stop = self.stop.clone();
        let idle = self.options.once_idle.unwrap_or(HUB_SNAPSHOT_INTERVAL);
        loop {
            let first = tokio::select! {
                biased;
                () = stopped(&mut stop) => {
                    connection.close().await;
                    return Ok(Served::Stop);
                }
                first = timeout(idle, connection.deliveries.recv()) => first,
            };
            match first {
                Ok(Some(first)) => {
                    let batch = fill(first, &mut connection.deliveries).await;
                    let (written, committed) = self.write(batch).await?;
                    if let Err(why) = self.answer(&connection, written, committed).await {
                        return Ok(Served::Lost(why));
                    }
                    self.blocking(Desk::save_if_due).await?;
                }
                Ok(None) => return Ok(Served::Lost(connection.why().await)),
                Err(_) if self.options.once_idle.is_some() => {
                    connection.close().await;
                    return Ok(Served::Stop);
                }
                Err(_) => self.blocking(Desk::save_if_due).await?,
            }
        }
    }

    /// Takes and commits a batch; tries for ever where only the disk is in the way.
    async fn write(&mut self, batch: Vec<Delivery>) -> Result<(Vec<Unanswered>, Committed), ReceiveError> {
        let (mut committed, batch) = self
            .blocking(move |desk| {
                for delivery in &batch {
                    desk.take(&delivery.arrival)?;
                }
                Ok::<_, DeskError>((desk.commit(), batch))
            })
            .await??;
        let mut wait = HUB_OUTPUT_RETRY_MIN;
        let committed = loop {
            let error = match committed {
                Ok(committed) => break committed,
                Err(error) => error,
            };
            let (out, wait_s) = (self.options.out.display(), wait.as_secs());
            tracing::error!(%out, %error, wait_s, "cannot write the output: nothing is acknowledged until it can; make room or repair the disk");
            if timeout(wait, stopped(&mut self.stop)).await.is_ok() {
                return Err(ReceiveError::StoppedUnwritten(error));
            }
            wait = (wait * 2).min(HUB_OUTPUT_RETRY_MAX);
            committed = self.blocking(Desk::commit).await?;
        };
        self.progressed = true;
        Ok((batch.into_iter().map(Delivery::written).collect(), committed))
    }

    async fn answer(&mut self, connection: &Connection, written: Vec<Unanswered>, committed: Committed) -> Result<(), String> {
        let encode = |receipt| serde_json::to_vec(&receipt).expect("a receipt is plain data");
        let receipts = committed.receipts.into_iter().map(|(topic, receipt)| (topic, encode(receipt))).collect();
        let answered = connection.answer(written, receipts).await;
        for line in committed.written {
            self.tell(Seen::Written(line)).await;
        }
        answered
    }

    async fn tell(&mut self, seen: Seen) {
        if let Some(observer) = &self.observer
            && observer.send(seen).await.is_err()
        {
            self.observer = None; // it has seen enough
        }
    }

    /// Runs a step of the desk where it may block.
    async fn blocking<T: Send + 'static>(&mut self, step: impl FnOnce(&mut Desk) -> T + Send + 'static) -> Result<T, ReceiveError> {
        let mut desk = self.desk.take().ok_or(ReceiveError::Panicked)?;
        let (desk, done) = spawn_blocking(move || {
            let done = step(&mut desk);
            (desk, done)
        })
        .await
        .map_err(|_| ReceiveError::Panicked)?;
        self.desk = Some(desk);
        Ok(done)
    }
}

/// What is there or comes at once, up to the bounds of a batch.
async fn fill(first: Delivery, deliveries: &mut mpsc::Receiver<Delivery>) -> Vec<Delivery> {
    let mut bytes = first.arrival.payload.len();
    let mut batch = vec![first];
    while batch.len() < HUB_BATCH_MAX && bytes < HUB_BATCH_BYTES_MAX {
        let Ok(Some(next)) = timeout(HUB_BATCH_IDLE, deliveries.recv()).await else { break };
        bytes += next.arrival.payload.len();
        batch.push(next);
    }
    batch
}

/// Waits until the stop is asked for.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that whoever could ask is gone, which asks for it too.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    if let Err(error) = getrandom::fill(&mut bytes) {
        tracing::warn!(%error, "no random numbers");
    }
    bytes
}

/// Full jitter below a bound that doubles.
fn backoff(failures: u32) -> Duration {
    let bound = BACKOFF_MIN.saturating_mul(1 << failures.min(8)).min(HUB_BACKOFF_MAX);
    bound.mul_f64(f64::from(random()[0]) / 255.0)
}

/// Reads `mqtts://host:port` or `mqtt://host:port`.
pub fn parse_endpoint(url: &str) -> Result<Endpoint, String> {
    let (tls, rest, port) = match (url.strip_prefix("mqtts://"), url.strip_prefix("mqtt://")) {
        (Some(rest), _) => (true, rest, 8883),
        (_, Some(rest)) => (false, rest, 1883),
        _ => return Err("must begin with mqtts:// (or mqtt:// without TLS)".into()),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, Ok(port)),
        Some((host, rest)) => (host, rest.strip_prefix(':').unwrap_or("").parse()),
        None => rest.rsplit_once(':').map_or((rest, Ok(port)), |(host, port)| (host, port.parse())),
    };
    let plain = !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
    match port {
        Ok(port) if plain => Ok(Endpoint::new(host, port, tls)),
        _ => Err("must be like mqtts://hub.example.org:8883".into()),
    }
}

/// The chain of an error's causes, for the edge.
pub fn explain(error: &ReceiveError) -> String {
    chain(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_addresses_are_read_with_and_without_port() {
        let read = |url| parse_endpoint(url).map(|e| e.to_string());
        assert_eq!(read("mqtts://hub.example.org:8883"), Ok("mqtts://hub.example.org:8883".into()));
        assert_eq!(read("mqtts://hub.example.org"), Ok("mqtts://hub.example.org:8883".into()));
        assert_eq!(read("mqtt://127.0.0.1:1883/"), Ok("mqtt://127.0.0.1:1883".into()));
        assert_eq!(read("mqtts://[::1]:99"), Ok("mqtts://[::1]:99".into()));
        for bad in ["hub:8883", "https://hub", "mqtt://", "mqtt://h:port", "mqtt://u@h:1", "mqtts://[::1]99"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_sockets_directory_stands_beside_the_output_and_one_left_behind_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        for _ in 0..2 {
            let made = RuntimeDirectory::new(&out).unwrap();
            assert_eq!(made.0, dir.path().join("out.run"));
            std::mem::forget(made); // killed
        }
        std::fs::set_permissions(dir.path().join("out.run"), std::os::unix::fs::PermissionsExt::from_mode(0o770)).unwrap();
        let other = RuntimeDirectory::new(&out).unwrap();
        assert!(!other.0.starts_with(dir.path()), "one that others can write to is not trusted");
    }

    #[test]
    fn waiting_to_reconnect_is_bounded() {
        assert!((0..100).all(|failures| backoff(failures) <= HUB_BACKOFF_MAX));
    }
}
