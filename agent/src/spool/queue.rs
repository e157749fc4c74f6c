//! The committer's thread and the handle that sources hold.
//!
//! One bounded channel leads to one thread. The thread takes what is waiting, up to a batch, commits it, answers, and starts again: under load
//! batches grow by themselves (group commit), at rest a message waits for nobody. Rows of files are written by a thread beside it, while it
//! computes the next (see `flight`). Between batches it reads the dedupe window back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::committer::Committer;
use super::filelist::{FileList, Note};
use super::index::Shared;
use super::quarantine::Row;
use super::quarantine::{Item, Quarantine};
use super::rows::{Appending, Bundle, Rows};
use super::{AppendError, ConfigureError, Durable, QuarantineError};
use crate::clock;
use crate::limits;
use crate::record::{FeedId, FilePlace, Incarnation, Lane, Message, Payload};
use crate::status::condition::Code;

/// Share of the quarantine quota that unusable bytes may take, in per cent; the rest is kept for records.
const FRAMES_SHARE: u64 = 25;
const RENEW_TIMEOUT: Duration = Duration::from_secs(10);

enum Request {
    Append {
        message: Message,
        answer: oneshot::Sender<Result<Durable, AppendError>>,
    },
    Several {
        messages: Vec<Message>,
        answer: oneshot::Sender<Vec<Result<Durable, AppendError>>>,
    },
    Files {
        bundle: Bundle,
    },
    /// What was under way may have landed.
    Landed,
    Row {
        row: Row,
        answer: oneshot::Sender<Result<(), QuarantineError>>,
    },
    Frame {
        feed: FeedId,
        peer: String,
        code: &'static str,
        bytes: Payload,
    },
    Renew {
        answer: std::sync::mpsc::SyncSender<Result<Incarnation, AppendError>>,
    },
    Configure {
        feeds: Vec<(FeedId, Lane)>,
        answer: oneshot::Sender<Result<(), ConfigureError>>,
    },
    Stop,
}

/// What a source holds: it can append, nothing else. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Appender {
    requests: mpsc::Sender<Request>,
    shared: Arc<Shared>,
    /// Somebody has the wide way.
    is_wide_taken: Arc<AtomicBool>,
}

/// The right to have many records under way at once, which is what a large file needs to be fast. One feed has it at a time, so that the memory
/// stays bounded whatever the number of feeds (I4).
#[derive(Debug)]
pub struct Wide(Arc<AtomicBool>);

impl Drop for Wide {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Appender {
    /// Waits for a place in the queue and for the sync. A caller that gives up waiting takes nothing back: the record may still become durable.
    pub async fn append(&self, message: Message) -> Result<Durable, AppendError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Append { message, answer }).await.map_err(|_| AppendError::Stopping)?;
        answered.await.unwrap_or(Err(AppendError::Stopping))
    }

    /// Several messages in order, each with an answer of its own, also in order; those of one batch need one sync. As with [`Appender::append`].
    pub async fn append_several(&self, messages: Vec<Message>) -> Vec<Result<Durable, AppendError>> {
        let (answer, answered) = oneshot::channel();
        if self.requests.send(Request::Several { messages, answer }).await.is_err() {
            return vec![Err(AppendError::Stopping)];
        }
        answered.await.unwrap_or_else(|_| vec![Err(AppendError::Stopping)])
    }

    /// Records of one file feed, in order, each run naming what it follows. Blocks while the queue is full; not for asynchronous code.
    pub fn append_files(&self, runs: Vec<Rows>) -> Result<Appending, AppendError> {
        let (waiter, answered) = oneshot::channel();
        self.requests.blocking_send(Request::Files { bundle: Bundle { runs, waiter } }).map_err(|_| AppendError::Stopping)?;
        Ok(Appending(answered))
    }

    /// The right to have many records under way, unless somebody has it.
    pub fn widen(&self) -> Option<Wide> {
        let was_taken = self.is_wide_taken.swap(true, Ordering::AcqRel);
        (!was_taken).then(|| Wide(Arc::clone(&self.is_wide_taken)))
    }

    /// These feeds are configured from now on, and no others: a new one can be appended to when this returns `Ok`, what is in the queue before it
    /// belongs to the old ones. After an error everything is as it was.
    pub async fn configure(&self, feeds: Vec<(FeedId, Lane)>) -> Result<(), ConfigureError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Configure { feeds, answer }).await.map_err(|_| ConfigureError::Stopping)?;
        answered.await.unwrap_or(Err(ConfigureError::Stopping))
    }

    /// How far a file feed is durable.
    pub fn file_progress(&self, feed: &FeedId) -> Option<FilePlace> {
        self.shared.index().feeds.get(feed).and_then(|feed| feed.files).map(|progress| progress.place)
    }

    /// The list of files the feed is done with.
    pub fn file_list(&self, feed: &FeedId) -> std::io::Result<(FileList, Vec<Note>)> {
        FileList::open(Arc::clone(&self.shared.disk), &self.shared.path, feed)
    }

    /// A part of a file or body that cannot be a record: sealed into quarantine, synced when this returns `Ok`. Blocks.
    pub fn quarantine_row(&self, row: Row) -> Result<(), QuarantineError> {
        let stopping = || QuarantineError::Store("the agent is stopping".into());
        let (answer, answered) = oneshot::channel();
        self.requests.blocking_send(Request::Row { row, answer }).map_err(|_| stopping())?;
        answered.blocking_recv().unwrap_or_else(|_| Err(stopping()))
    }

    /// The same for asynchronous code.
    pub async fn quarantine_part(&self, row: Row) -> Result<(), QuarantineError> {
        let stopping = || QuarantineError::Store("the agent is stopping".into());
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Row { row, answer }).await.map_err(|_| stopping())?;
        answered.await.unwrap_or_else(|_| Err(stopping()))
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

enum Answer {
    One(oneshot::Sender<Result<Durable, AppendError>>),
    Each(oneshot::Sender<Vec<Result<Durable, AppendError>>>),
}

/// Who waits for so many of a batch's records.
struct Waiting {
    records: usize,
    answer: Answer,
}

struct Worker {
    committer: Committer,
    shared: Arc<Shared>,
    quarantine: Arc<Quarantine>,
    requests: mpsc::Receiver<Request>,
}

/// Starts the thread.
pub(super) fn start(
    mut committer: Committer,
    shared: Arc<Shared>,
    quarantine: Arc<Quarantine>,
) -> std::io::Result<(Appender, RenewHandle, Closer)> {
    let (sender, requests) = mpsc::channel(limits::APPEND_QUEUE);
    let bell = sender.downgrade();
    committer.employ(move || {
        // Where the queue is full the committer is awake, and looks for itself.
        if let Some(bell) = bell.upgrade() {
            drop(bell.try_send(Request::Landed));
        }
    })?;
    let worker = Worker { committer, shared: Arc::clone(&shared), quarantine, requests };
    let thread = std::thread::Builder::new().name("committer".into()).spawn(move || worker.run())?;
    let appender = Appender { requests: sender.clone(), shared, is_wide_taken: Arc::default() };
    Ok((appender, RenewHandle { requests: sender.clone() }, Closer { requests: sender, thread }))
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
        // Storing rows takes time: what comes meanwhile is for the next turn, or whoever came first would wait for it.
        let (mut waiting, mut has_rows) = (self.requests.len(), false);
        while let Some(request) = next.take() {
            match request {
                Request::Append { message, answer } => {
                    bytes += message.body.len() as u64;
                    batch.push(message);
                    answers.push(Waiting { records: 1, answer: Answer::One(answer) });
                }
                Request::Several { messages, answer } => {
                    bytes += messages.iter().map(|message| message.body.len() as u64).sum::<u64>();
                    answers.push(Waiting { records: messages.len(), answer: Answer::Each(answer) });
                    batch.extend(messages);
                }
                Request::Files { bundle } => {
                    bytes += bundle.body_bytes();
                    has_rows = true;
                    self.committer.store(bundle);
                }
                Request::Landed => self.committer.go(),
                // It costs a sync of its own, so those before it are answered first, and those behind it are for the next turn: many of them
                // hold up nobody's answer. What stands behind it in its file is not sent before this is answered.
                Request::Row { row, answer } => {
                    self.commit(std::mem::take(&mut batch), std::mem::take(&mut answers));
                    drop(answer.send(self.keep_row(&row)));
                    break;
                }
                Request::Frame { feed, peer, code, bytes } => {
                    self.commit(std::mem::take(&mut batch), std::mem::take(&mut answers));
                    self.keep_frame(&feed, &peer, code, &bytes);
                    break;
                }
                Request::Renew { answer } => {
                    self.commit(std::mem::take(&mut batch), std::mem::take(&mut answers));
                    if answer.send(self.committer.renew()).is_err() {
                        tracing::warn!("a new incarnation was begun, but nobody waited for it any more");
                    }
                }
                Request::Configure { feeds, answer } => {
                    self.commit(std::mem::take(&mut batch), std::mem::take(&mut answers));
                    // Whoever asked may be gone: the feeds are configured all the same.
                    drop(answer.send(self.committer.configure(&feeds)));
                }
                Request::Stop => {
                    goes_on = false;
                    break;
                }
            }
            let is_over = has_rows && waiting == 0;
            if batch.len() < limits::BATCH_RECORDS_MAX && bytes < limits::BATCH_BYTES_MAX && !is_over {
                waiting = waiting.saturating_sub(1);
                next = self.requests.try_recv().ok();
            }
        }
        self.commit(batch, answers);
        self.committer.go();
        goes_on
    }

    fn commit(&mut self, batch: Vec<Message>, answers: Vec<Waiting>) {
        if batch.is_empty() {
            return;
        }
        // Neighbours of one feed are counted together: a file has thousands of them.
        let mut feeds: Vec<(FeedId, i64, usize)> = Vec::new();
        for message in &batch {
            match feeds.last_mut() {
                Some((feed, received_at_ms, count)) if *feed == message.feed => {
                    *received_at_ms = message.received_at_ms;
                    *count += 1;
                }
                _ => feeds.push((message.feed.clone(), message.received_at_ms, 1)),
            }
        }
        let outcomes = self.committer.commit(batch);
        let mut rest = &outcomes[..];
        for (feed, received_at_ms, count) in feeds {
            let (mine, others) = rest.split_at(count);
            rest = others;
            let duplicates = mine.iter().flatten().filter(|durable| durable.is_duplicate()).count();
            let stored = mine.iter().flatten().count() - duplicates;
            self.shared.board.count(&feed, stored as u64, duplicates as u64, received_at_ms);
        }
        let mut outcomes = outcomes.into_iter();
        for Waiting { records, answer } in answers {
            let mut mine = outcomes.by_ref().take(records);
            match answer {
                // The connection may be gone: the record is durable all the same, and the sender will resend and be recognised.
                Answer::One(answer) => drop(mine.next().map(|outcome| answer.send(outcome))),
                Answer::Each(answer) => drop(answer.send(mine.collect())),
            }
        }
    }

    fn keep_row(&self, row: &Row) -> Result<(), QuarantineError> {
        let kept = self.quarantine.put_row(&*self.shared.disk, &self.shared.key, row, clock::now().unix_ms);
        match &kept {
            Ok(is_new) => {
                self.shared.board.clear(Code::QuarantineFull, row.feed.as_str());
                self.shared.board.clear(Code::QuarantineWriteFailed, row.feed.as_str());
                let counter = &self.shared.board.feed(&row.feed).quarantined;
                counter.fetch_add(u64::from(*is_new), std::sync::atomic::Ordering::Relaxed);
                let text = "rows of files were put into quarantine; read their reasons and decide";
                self.shared.board.raise(Code::QuarantineNotEmpty, row.feed.as_str(), text);
            }
            Err(QuarantineError::Full) => {
                let text = "quarantine is full; the file waits at a row that cannot be a record until room is made";
                self.shared.board.raise(Code::QuarantineFull, row.feed.as_str(), text);
            }
            Err(QuarantineError::Store(error)) => {
                let text = format!("{error}; what cannot be a record waits until it can be kept, and all behind it; check the disk");
                self.shared.board.raise(Code::QuarantineWriteFailed, row.feed.as_str(), text);
            }
        }
        kept.map(drop)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::FileFingerprint;
    use crate::spool::tests::{Bench, feed, message};

    fn row() -> Request {
        let bytes = Payload::new(bytes::Bytes::from_static(b"row"));
        let row = Row { feed: feed("a"), file: FileFingerprint([1; 32]), offset: 0, code: "code", origin: String::new(), bytes };
        Request::Row { row, answer: oneshot::channel().0 }
    }

    fn frame() -> Request {
        Request::Frame { feed: feed("a"), peer: "peer".into(), code: "code", bytes: Payload::new(bytes::Bytes::from_static(b"junk")) }
    }

    /// Junk of one sender and bad rows of one file hold up nobody's answer: those before them are answered first, and one turn takes one of them.
    #[test]
    fn a_turn_ends_with_the_first_thing_for_quarantine() {
        for junk in [row, frame] {
            let bench = Bench::new();
            let crate::spool::Parts { committer, shared, quarantine, .. } = bench.open();
            let (sender, requests) = mpsc::channel(8);
            let mut worker = Worker { committer, shared, quarantine, requests };
            let (answer, mut answered) = oneshot::channel();
            for _ in 0..5 {
                assert!(sender.try_send(junk()).is_ok());
            }
            assert!(worker.turn(Request::Append { message: message("b", "1", "body"), answer }));
            assert!(answered.try_recv().unwrap().is_ok());
            assert_eq!(worker.requests.len(), 4, "one of them was taken");
        }
    }
}
