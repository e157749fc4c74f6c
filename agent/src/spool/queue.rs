//! The committer's thread and the handle that sources hold.
//!
//! One bounded channel leads to one thread. The thread takes what is waiting, up to a batch, commits it, answers, and starts again: under load
//! batches grow by themselves (group commit), at rest a message waits for nobody. Between batches it reads the dedupe window back.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::committer::Committer;
use super::index::Shared;
use super::quarantine::{Item, Quarantine};
use super::{AppendError, Durable};
use crate::clock;
use crate::limits;
use crate::record::{FeedId, Incarnation, Message, Payload};
use crate::status::condition::Code;

/// Share of the quarantine quota that unusable bytes may take, in per cent; the rest is kept for records.
const FRAMES_SHARE: u64 = 25;
const RENEW_TIMEOUT: Duration = Duration::from_secs(10);

enum Request {
    Append { message: Message, answer: oneshot::Sender<Result<Durable, AppendError>> },
    Frame { feed: FeedId, peer: String, code: &'static str, bytes: Payload },
    Renew { answer: std::sync::mpsc::SyncSender<Result<Incarnation, AppendError>> },
    Stop,
}

/// What a source holds: it can append, nothing else. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Appender {
    requests: mpsc::Sender<Request>,
}

impl Appender {
    /// Waits for a place in the queue and for the sync. A caller that gives up waiting takes nothing back: the record may still become durable.
    pub async fn append(&self, message: Message) -> Result<Durable, AppendError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Append { message, answer }).await.map_err(|_| AppendError::Stopping)?;
        answered.await.unwrap_or(Err(AppendError::Stopping))
    }

    /// Bytes that could not be a message: sealed into quarantine as far as its quota allows, else only counted.
    pub async fn quarantine_frame(&self, feed: &FeedId, peer: &str, code: &'static str, bytes: Payload) {
        let request = Request::Frame { feed: feed.clone(), peer: peer.to_owned(), code, bytes };
        if self.requests.send(request).await.is_err() {
            tracing::warn!(%feed, code, "unusable bytes were not kept: the agent is stopping");
        }
    }
}

/// Asks the committer for a new incarnation.
#[derive(Debug, Clone)]
pub struct RenewHandle {
    requests: mpsc::Sender<Request>,
}

impl RenewHandle {
    /// Blocks for at most ten seconds.
    pub fn renew(&self) -> Result<Incarnation, AppendError> {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        self.requests
            .try_send(Request::Renew { answer })
            .map_err(|_| AppendError::Store("the committer is too busy; it is tried again".into()))?;
        answered.recv_timeout(RENEW_TIMEOUT).unwrap_or(Err(AppendError::Stopping))
    }
}

/// Ends the spool.
#[derive(Debug)]
pub struct Closer {
    requests: mpsc::Sender<Request>,
    thread: JoinHandle<()>,
}

impl Closer {
    /// Commits what is queued, writes footers and heads, ends the thread. Blocks as long as the disk does; not for asynchronous code.
    pub fn close(self) {
        // An error means that the thread has ended already.
        let stopped = self.requests.blocking_send(Request::Stop);
        if self.thread.join().is_err() || stopped.is_err() {
            tracing::error!("the committer had ended before it was told to; the next start recovers the journal");
        }
    }

    /// Whether the committer still runs.
    pub fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }
}

struct Worker {
    committer: Committer,
    shared: Arc<Shared>,
    quarantine: Arc<Quarantine>,
    requests: mpsc::Receiver<Request>,
}

/// Starts the thread.
pub(super) fn start(
    committer: Committer,
    shared: Arc<Shared>,
    quarantine: Arc<Quarantine>,
) -> std::io::Result<(Appender, RenewHandle, Closer)> {
    let (sender, requests) = mpsc::channel(limits::APPEND_QUEUE);
    let worker = Worker { committer, shared, quarantine, requests };
    let thread = std::thread::Builder::new().name("committer".into()).spawn(move || worker.run())?;
    Ok((Appender { requests: sender.clone() }, RenewHandle { requests: sender.clone() }, Closer { requests: sender, thread }))
}

impl Worker {
    fn run(mut self) {
        let mut has_idle_work = true;
        loop {
            let first = if has_idle_work {
                match self.requests.try_recv() {
                    Ok(request) => Some(request),
                    Err(mpsc::error::TryRecvError::Empty) => None,
                    Err(mpsc::error::TryRecvError::Disconnected) => break,
                }
            } else {
                match self.requests.blocking_recv() {
                    Some(request) => Some(request),
                    None => break,
                }
            };
            if let Some(first) = first
                && !self.turn(first)
            {
                break;
            }
            has_idle_work = self.committer.idle();
        }
        self.committer.close();
    }

    /// One batch, beginning with `first`. False when told to stop.
    fn turn(&mut self, first: Request) -> bool {
        let mut batch = Vec::new();
        let mut answers = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        let mut goes_on = true;
        while let Some(request) = next.take() {
            match request {
                Request::Append { message, answer } => {
                    bytes += message.body.len() as u64;
                    batch.push(message);
                    answers.push(answer);
                }
                Request::Frame { feed, peer, code, bytes } => self.keep_frame(&feed, &peer, code, &bytes),
                Request::Renew { answer } => {
                    self.commit(std::mem::take(&mut batch), std::mem::take(&mut answers));
                    if answer.send(self.committer.renew()).is_err() {
                        tracing::warn!("a new incarnation was begun, but nobody waited for it any more");
                    }
                }
                Request::Stop => {
                    goes_on = false;
                    break;
                }
            }
            if batch.len() < limits::BATCH_RECORDS_MAX && bytes < limits::BATCH_BYTES_MAX {
                next = self.requests.try_recv().ok();
            }
        }
        self.commit(batch, answers);
        goes_on
    }

    fn commit(&mut self, batch: Vec<Message>, answers: Vec<oneshot::Sender<Result<Durable, AppendError>>>) {
        if batch.is_empty() {
            return;
        }
        let feeds: Vec<(FeedId, i64)> = batch.iter().map(|message| (message.feed.clone(), message.received_at_ms)).collect();
        let outcomes = self.committer.commit(batch);
        for ((outcome, answer), (feed, received_at_ms)) in outcomes.into_iter().zip(answers).zip(feeds) {
            match &outcome {
                Ok(durable) if durable.is_duplicate() => self.shared.board.count_duplicate(&feed, received_at_ms),
                Ok(_) => self.shared.board.count_captured(&feed, received_at_ms),
                Err(_) => {}
            }
            // The connection may be gone: the record is durable all the same, and the sender will resend and be recognised.
            drop(answer.send(outcome));
        }
    }

    fn keep_frame(&self, feed: &FeedId, peer: &str, code: &'static str, bytes: &Payload) {
        self.shared.board.feed(feed).quarantined.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if !self.quarantine.has_room(bytes.len() as u64, FRAMES_SHARE) {
            self.shared.board.raise(
                Code::QuarantineFull,
                feed.as_str(),
                "unusable bytes are only counted: their part of the quarantine is full",
            );
            return;
        }
        let at_ms = clock::now().unix_ms;
        let item = Item { feed, record: None, code, peer, at_ms, bytes: bytes.expose() };
        if let Err(error) = self.quarantine.put(&*self.shared.disk, &self.shared.key, &item) {
            tracing::warn!(%feed, code, "unusable bytes could not be kept: {error}");
        }
    }
}
