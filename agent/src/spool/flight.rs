//! Rows of files on their way: what is computed while the disk is busy with what was computed before.
//!
//! ```text
//!   store ──► ahead: numbered, chained, sealed behind what is under way ──┐ go, or FLUSH_BYTES of it
//!                                                                         ▼
//!                     landed ◄── flight: one write, one fdatasync by another thread
//!                       ok      adopted, answered; what is ahead goes next
//!                       failed  it and everything ahead of it is forgotten and answered with the error; the segment is given up
//! ```
//!
//! The committer's half for records of files (I1, I3). At most one flight, and at most one run of batches ahead of it, both of one lane. What is
//! ahead is behind the flight in its segment, or in a segment of its own where that one is full: then even its header is written only when the
//! flight has landed (`lane`). What is ahead says of itself that everything before it in its segment is durable (`synced_through`): true, because
//! it is written only when that is so. Nothing is adopted, told to the reader or answered before its own sync succeeded. Messages of senders are
//! never under way while something else is computed: whoever stores one in the lane of a flight waits for it and takes what is ahead along, in one
//! sync.
//!
//! Rows are stored only behind what they follow: what comes after something forgotten is refused, until its feed begins again from its progress.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use super::AppendError;
use super::committer::{Ahead, Committer, Scratch};
use super::disk::Disk;
use super::rows::{Appending, Bundle, Rows};
use super::segment::{Closed, Closing, Done, Job, Named, Naming, Writer, record_bytes_max};
use crate::contract::Mark;
use crate::limits;
use crate::record::{FeedId, FilePlace, Lane};

/// What is being written and synced.
#[derive(Debug)]
pub(super) struct Flight {
    lane: Lane,
    scratch: Scratch,
}

/// A run of rows in one flush.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) feed: FeedId,
    pub(super) first: u64,
    pub(super) last: Mark,
    /// Of the last one.
    pub(super) place: FilePlace,
    pub(super) received_at_ms: i64,
}

impl Stored {
    pub(super) fn count(&self) -> u64 {
        self.last.seq + 1 - self.first
    }
}

/// Who carries out the job of a flight, and what is to be done for the segments before and behind it.
#[derive(Debug)]
pub(super) enum Hand {
    /// The committer itself, when it looks for the outcome.
    Own {
        job: Option<Job>,
        closing: Option<Closing>,
    },
    Threads(Threads),
}

/// One thread for each, so that nothing that is waited for waits for a footer.
#[derive(Debug)]
pub(super) struct Threads {
    jobs: SyncSender<Job>,
    done: Receiver<Done>,
    chores: SyncSender<Chore>,
    closed: Receiver<Closed>,
    /// Footers that were asked for and not heard of.
    unclosed: usize,
}

/// What a segment needs beside its rows.
#[derive(Debug)]
enum Chore {
    Name(Naming),
    Close(Closing),
}

impl Default for Hand {
    fn default() -> Self {
        Self::Own { job: None, closing: None }
    }
}

impl Hand {
    fn begin(&mut self, new: Job) {
        match self {
            Self::Own { job, .. } => *job = Some(new),
            // A thread that has ended is noticed when the outcome is waited for.
            Self::Threads(threads) => drop(threads.jobs.send(new)),
        }
    }

    /// The outcome; `None` if it is not there yet and is not to be waited for.
    fn end(&mut self, wait: bool) -> Option<Done> {
        let gone = || Done {
            outcome: Err(std::io::Error::other("the thread that writes has ended")),
            bytes: Vec::new(),
            took: std::time::Duration::ZERO,
        };
        match self {
            Self::Own { job, .. } => Some(job.take().map_or_else(gone, Job::run)),
            Self::Threads(Threads { done, .. }) if wait => Some(done.recv().unwrap_or_else(|_| gone())),
            Self::Threads(Threads { done, .. }) => match done.try_recv() {
                Ok(done) => Some(done),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => Some(gone()),
            },
        }
    }

    /// Has the name of a new file made durable; what is returned will say so.
    pub(super) fn name(&mut self, disk: &Arc<dyn Disk>, path: &Path) -> Named {
        let (naming, named) = Naming::of(disk, path);
        match self {
            Self::Own { .. } => naming.run(),
            // Without the thread nobody says anything, and that is an error.
            Self::Threads(threads) => drop(threads.chores.send(Chore::Name(naming))),
        }
        named
    }

    /// Has a footer written, some time; says which ones were since it was last asked. Blocks only while there are more before it than may wait.
    pub(super) fn close(&mut self, new: Closing) -> Vec<Closed> {
        match self {
            Self::Own { closing, .. } => closing.replace(new).map(Closing::run).into_iter().collect(),
            Self::Threads(threads) => {
                // Heard of before the next is sent: there is always room for what is said.
                let heard: Vec<Closed> = threads.closed.try_iter().collect();
                threads.unclosed -= heard.len();
                // Without the thread the next start scans that segment.
                threads.unclosed += usize::from(threads.chores.send(Chore::Close(new)).is_ok());
                heard
            }
        }
    }

    /// Waits for all footers.
    fn close_all(&mut self) -> Vec<Closed> {
        match self {
            Self::Own { closing, .. } => closing.take().map(Closing::run).into_iter().collect(),
            Self::Threads(Threads { closed, unclosed, .. }) => closed.iter().take(std::mem::take(unclosed)).collect(),
        }
    }
}

/// Buffers that are used again: one is written while another is filled.
#[derive(Debug, Default)]
pub(super) struct Buffers(Vec<Vec<u8>>);

/// What a buffer for rows has room for: a flush, and the record with which it is full.
const BUFFER_BYTES: usize = limits::FLUSH_BYTES + limits::FRAME_OWN_BYTES;

impl Buffers {
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    /// One large message must not hold its memory for ever.
    pub(super) fn keep(&mut self, mut buffer: Vec<u8>) {
        if self.0.len() < 2 && buffer.capacity() <= BUFFER_BYTES {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

impl Committer {
    /// Takes runs of rows, in order, each naming what it follows; they are durable when the answer says so. Blocks only where more would be ahead
    /// than may be. [`Committer::go`] has them written.
    pub fn append_rows(&mut self, runs: Vec<Rows>) -> Appending {
        let (waiter, answered) = tokio::sync::oneshot::channel();
        self.store(Bundle { runs, waiter });
        Appending(answered)
    }

    pub(super) fn store(&mut self, bundle: Bundle) {
        self.carry_out_moves();
        let Bundle { runs, waiter } = bundle;
        for run in &runs {
            if let Err(error) = self.store_run(run) {
                // Whoever is told looks at the feed's progress: it must not move any more.
                self.settle();
                return drop(waiter.send(Err(error)));
            }
        }
        // With whichever the last of them is in.
        if let Some((_, scratch)) = &mut self.ahead {
            scratch.waiters.push(waiter);
        } else if let Some(flight) = &mut self.flight {
            flight.scratch.waiters.push(waiter);
        } else {
            drop(waiter.send(Ok(())));
        }
    }

    fn store_run(&mut self, run: &Rows) -> Result<(), AppendError> {
        let feed = &run.of.feed;
        let lane = self.shared.index().feeds.get(feed).filter(|feed| feed.configured).map(|feed| feed.lane);
        let lane = lane.ok_or_else(|| AppendError::UnknownFeed(feed.clone()))?;
        if self.busy_lane().is_some_and(|busy| busy != lane) {
            self.settle();
        }
        if self.reached(feed).1 != run.follows {
            return Err(AppendError::Store(
                "what comes before it in its file was not stored; the file is gone through again from there".into(),
            ));
        }
        let (mut at, mut header) = (0, run.header());
        while let Some(row) = run.records.get(at) {
            let bytes = row.body.len() as u64;
            if bytes > self.shared.message_bytes_max {
                return Err(AppendError::TooLarge { bytes });
            }
            self.make_room(lane, row.body.len())?;
            let mut mark = self.reached(feed).0;
            let first = mark.seq + 1;
            let open = self.lanes[lane.index()].newest().expect("there is room in it");
            open.lend(|| {
                let mut buffer = self.buffers.take();
                buffer.reserve(BUFFER_BYTES.min(run.bytes_max(at)));
                buffer
            });
            loop {
                let row = &run.records[at];
                run.fill_header(row, &mut header);
                (header.seq, header.chain_before) = (mark.seq + 1, mark.chain);
                open.put(&mut header, &[], row.body.expose());
                mark = Mark { seq: header.seq, chain: header.chain_before.after(header.seq, &header.digest) };
                at += 1;
                let next = run.records.get(at).filter(|next| next.body.len() as u64 <= self.shared.message_bytes_max);
                if !next.is_some_and(|next| has_room(open, next.body.len())) {
                    break;
                }
            }
            let place = run.place(&run.records[at - 1]);
            let (_, scratch) = self.ahead.get_or_insert_with(|| (lane, Scratch::default()));
            scratch.reach(feed, Ahead { mark, place: Some(place) });
            scratch.stored.push(Stored { feed: feed.clone(), first, last: mark, place, received_at_ms: run.of.received_at_ms });
        }
        Ok(())
    }

    /// The lane of what is under way or ahead.
    fn busy_lane(&self) -> Option<Lane> {
        self.ahead.as_ref().map(|(lane, _)| *lane).or(self.flight.as_ref().map(|flight| flight.lane))
    }

    /// Where a feed is, with everything that is ahead and under way.
    fn reached(&self, feed: &FeedId) -> (Mark, Option<FilePlace>) {
        let index = self.shared.index();
        let known = index.feeds.get(feed).expect("checked to be configured");
        let scratches = [self.ahead.as_ref().map(|(_, scratch)| scratch), self.flight.as_ref().map(|flight| &flight.scratch)];
        match scratches.into_iter().flatten().find_map(|scratch| scratch.heads.get(feed)) {
            Some(ahead) => (ahead.mark, ahead.place),
            None => (known.head, known.files.map(|progress| progress.place)),
        }
    }

    /// Makes room behind what is ahead, if need be in another segment.
    fn make_room(&mut self, lane: Lane, body: usize) -> Result<(), AppendError> {
        if self.lanes[lane.index()].newest().is_some_and(|open| has_room(open, body)) {
            return Ok(());
        }
        if self.ahead.is_some() {
            self.take_off()?;
        }
        let bytes = record_bytes_max(0, body);
        if self.lanes[lane.index()].open.as_ref().is_some_and(|open| open.has_room(bytes)) {
            return Ok(());
        }
        // Nothing is ahead: what is full is full of what is under way, or was durable before.
        if self.flight.as_ref().is_some_and(|flight| flight.lane == lane) { self.prepare(lane, bytes) } else { self.roll(lane, bytes) }
    }

    /// What is ahead is to be written: at once if nothing is under way, else when that has landed.
    pub fn go(&mut self) {
        if let Some(flight) = self.flight.take() {
            let Some(done) = self.hand.end(false) else {
                self.flight = Some(flight);
                return;
            };
            if self.finish(flight.lane, done, flight.scratch, &mut []).is_err() {
                return; // what was ahead of it is forgotten, and everybody told
            }
        }
        // Nothing is under way that could fail.
        drop(self.take_off());
    }

    /// Has written what is ahead, behind what is under way; an error is that of what was under way, and forgets what was ahead.
    fn take_off(&mut self) -> Result<(), AppendError> {
        self.land()?;
        let Some((lane, scratch)) = self.ahead.take() else { return Ok(()) };
        self.succeed(lane);
        let open = self.lanes[lane.index()].open.as_mut().expect("something is pending in it");
        self.hand.begin(open.job());
        self.flight = Some(Flight { lane, scratch });
        Ok(())
    }

    /// Waits for what is under way.
    fn land(&mut self) -> Result<(), AppendError> {
        let Some(Flight { lane, scratch }) = self.flight.take() else { return Ok(()) };
        let done = self.hand.end(true).expect("it was waited for");
        self.finish(lane, done, scratch, &mut [])
    }

    /// Waits until nothing is under way or ahead any more; everybody who waits for it was answered.
    pub fn settle(&mut self) {
        // Errors were answered.
        drop(self.take_off().and_then(|()| self.land()));
        let closed = self.hand.close_all();
        self.note_closed(closed);
    }

    /// Waits for what is under way in this lane; what was ahead of it is the caller's, in the open segment.
    pub(super) fn overtake(&mut self, lane: Lane) -> Scratch {
        if self.flight.as_ref().is_some_and(|flight| flight.lane == lane) {
            // The error was answered.
            drop(self.land());
        }
        self.succeed(lane);
        self.ahead.take_if(|(ahead, _)| *ahead == lane).map(|(_, scratch)| scratch).unwrap_or_default()
    }

    /// From now on jobs and footers are carried out by threads of their own; that of the jobs rings after each.
    pub(super) fn employ(&mut self, rings: impl Fn() + Send + 'static) -> std::io::Result<()> {
        let (jobs, waiting) = sync_channel::<Job>(1);
        let (outcomes, done) = sync_channel(1);
        std::thread::Builder::new().name("journal".into()).spawn(move || {
            for job in waiting {
                if outcomes.send(job.run()).is_err() {
                    return;
                }
                rings();
            }
        })?;
        let (chores, waiting) = sync_channel::<Chore>(CHORES);
        // One is being written while others wait.
        let (outcomes, closed) = sync_channel(CHORES + 2);
        std::thread::Builder::new().name("segments".into()).spawn(move || {
            for chore in waiting {
                match chore {
                    Chore::Name(naming) => naming.run(),
                    Chore::Close(closing) => {
                        if outcomes.send(closing.run()).is_err() {
                            return;
                        }
                    }
                }
            }
        })?;
        self.hand = Hand::Threads(Threads { jobs, done, chores, closed, unclosed: 0 });
        Ok(())
    }
}

/// Chores that wait for their thread: a segment has two.
const CHORES: usize = 2;

fn has_room(open: &Writer, body: usize) -> bool {
    let bytes = record_bytes_max(0, body);
    let is_full = open.pending_bytes() > 0 && open.pending_bytes() + bytes as usize > limits::FLUSH_BYTES;
    !is_full && open.has_room(bytes)
}
