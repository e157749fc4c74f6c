//! The segment the committer writes to: made, filled batch by batch, closed with a footer.
//!
//! ```text
//!   allocate (blocks) → directory sync → begin: header twice → fdatasync       only now may a record go in
//!   put, put, put → job: one write, one fdatasync                              only now is anything answered
//!                     └ put, put, … behind it while it runs                    never written unless it succeeded
//!   close: footer behind the last record, fdatasync, cut to length             a crash in between costs a scan, nothing else
//! ```
//!
//! A segment that is allocated while the last rows of the one before are still under way has no header: that says where the one before ends, and
//! nobody knows yet. It begins with its first job, which is there only when they have landed (see `flight`); rows are sealed for it meanwhile, and
//! its name is synced by another thread ([`Naming`]), whose word the first job waits for. A footer is nobody's promise, so it may be written and
//! synced later and elsewhere ([`Closing`]).
//!
//! A segment whose write or sync failed is given up: never written, synced or closed again. Its successor names where its durable records end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::disk::{Disk, DiskFile};
use super::format::{self, BODY_CRC_BYTES, DATA_START, FOOTER_RESERVE, FooterV1, PREFIX_BYTES, RecordHeaderV1, SegmentHeaderV1, SpanV1};
use super::index::Segment;
use super::key::{SEAL_BYTES, Sealer, SpoolKey};
use crate::limits::RECORD_HEADER_BYTES_MAX;
use crate::record::Lane;

/// The directory of a lane's segments.
pub fn lane_directory(spool: &Path, lane: Lane) -> PathBuf {
    spool.join("journal").join(lane.as_str())
}

/// The file of a segment.
pub fn segment_path(spool: &Path, lane: Lane, ordinal: u64) -> PathBuf {
    lane_directory(spool, lane).join(format!("{ordinal:016x}.seg"))
}

/// Most bytes a record of this size takes in a segment.
pub fn record_bytes_max(reply: usize, body: usize) -> u64 {
    (PREFIX_BYTES + RECORD_HEADER_BYTES_MAX + 4 + reply + body + SEAL_BYTES + BODY_CRC_BYTES) as u64
}

/// An open segment.
#[derive(Debug)]
pub struct Writer {
    pub header: SegmentHeaderV1,
    file: Arc<dyn DiskFile>,
    sealer: Sealer,
    /// Records up to here are durable.
    durable: u64,
    /// Bytes behind them that are being written and synced.
    under_way: u64,
    /// Records may go up to here.
    capacity: u64,
    /// Encoded records behind those, not written yet.
    pending: Vec<u8>,
    /// What its first job does before anything else.
    begin: Option<Begin>,
}

/// The header of a segment that has none yet.
#[derive(Debug)]
struct Begin {
    bytes: Vec<u8>,
    named: Named,
}

/// Whether the name of a new file is durable: will be said by whoever sees to it.
pub type Named = Receiver<io::Result<()>>;

/// The name of a new file, to be made durable by whichever thread.
#[derive(Debug)]
pub struct Naming {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    said: SyncSender<io::Result<()>>,
}

impl Naming {
    pub fn of(disk: &Arc<dyn Disk>, path: &Path) -> (Self, Named) {
        let (said, named) = sync_channel(1);
        let directory = path.parent().expect("a segment lies in its lane's directory").to_owned();
        (Self { disk: Arc::clone(disk), directory, said }, named)
    }

    pub fn run(self) {
        // A segment that was given up meanwhile is not waited for.
        drop(self.said.send(self.disk.sync_dir(&self.directory)));
    }
}

impl Begin {
    /// When this returns `Ok`, file, header and name are durable.
    fn run(&self, file: &dyn DiskFile) -> io::Result<()> {
        if self.bytes.len() as u64 > format::SEGMENT_HEADER_COPY {
            return Err(io::Error::other("the segment header does not fit its space; too many feeds"));
        }
        self.named.recv().unwrap_or_else(|_| Err(io::Error::other("the thread that sees to names and footers has ended")))?;
        file.write_at(0, &self.bytes)?;
        file.write_at(format::SEGMENT_HEADER_COPY, &self.bytes)?;
        file.sync_data()
    }
}

/// What is to be written and synced, by whichever thread.
#[derive(Debug)]
pub struct Job {
    file: Arc<dyn DiskFile>,
    begin: Option<Begin>,
    offset: u64,
    bytes: Vec<u8>,
}

/// What came of it, and the buffer.
#[derive(Debug)]
pub struct Done {
    pub outcome: io::Result<()>,
    pub bytes: Vec<u8>,
    pub took: Duration,
}

impl Job {
    /// After an error the segment must be given up.
    pub fn run(self) -> Done {
        let start = Instant::now();
        let begun = self.begin.map_or(Ok(()), |begin| begin.run(&*self.file));
        let written = begun.and_then(|()| self.file.write_at(self.offset, &self.bytes));
        let outcome = written.and_then(|()| self.file.sync_data());
        Done { outcome, bytes: self.bytes, took: start.elapsed() }
    }
}

/// A segment that is full: its footer, to be written by whichever thread.
#[derive(Debug)]
pub struct Closing {
    pub lane: Lane,
    pub ordinal: u64,
    file: Arc<dyn DiskFile>,
    offset: u64,
    footer: Vec<u8>,
}

/// How long the file is now.
#[derive(Debug)]
pub struct Closed {
    pub lane: Lane,
    pub ordinal: u64,
    pub outcome: io::Result<u64>,
}

impl Closing {
    /// Writes the footer and gives back what was allocated and not used. An error costs a scan at the next start.
    pub fn run(self) -> Closed {
        let len = self.offset + self.footer.len() as u64;
        let written = self.file.write_at(self.offset, &self.footer).and_then(|()| self.file.set_len(len));
        let outcome = written.and_then(|()| self.file.sync_data()).map(|()| len);
        Closed { lane: self.lane, ordinal: self.ordinal, outcome }
    }
}

impl Writer {
    /// Makes the segment's file; when this returns `Ok`, file, header and name are durable. On an error nothing of it is left, or what is left
    /// holds no record.
    pub fn create(disk: &Arc<dyn Disk>, path: &Path, header: SegmentHeaderV1, key: &SpoolKey, file_bytes: u64) -> io::Result<Self> {
        let mut made = Self::allocate(&**disk, path, header, key, file_bytes)?;
        let (naming, named) = Naming::of(disk, path);
        naming.run();
        made.begin_with(named);
        let begin = made.begin.take().expect("just put there");
        if let Err(error) = begin.run(&*made.file) {
            drop(made);
            remove_unused(&**disk, path);
            return Err(error);
        }
        Ok(made)
    }

    /// Makes the segment's file and nothing else: [`Writer::begin_with`] is to follow before the first job.
    pub fn allocate(disk: &dyn Disk, path: &Path, header: SegmentHeaderV1, key: &SpoolKey, file_bytes: u64) -> io::Result<Self> {
        let file = Arc::from(disk.create(path, file_bytes)?);
        let sealer = key.sealer(&header.id);
        let capacity = file_bytes - FOOTER_RESERVE;
        Ok(Self { header, file, sealer, durable: DATA_START, under_way: 0, capacity, pending: Vec::new(), begin: None })
    }

    /// The header is known as a whole: the first job writes it.
    pub fn begin_with(&mut self, named: Named) {
        self.begin = Some(Begin { bytes: format::encode_segment_header(&self.header), named });
    }

    pub fn has_room(&self, bytes: u64) -> bool {
        self.durable + self.under_way + self.pending.len() as u64 + bytes <= self.capacity
    }

    /// A buffer for the pending records, where there is none yet.
    pub fn lend(&mut self, buffer: impl FnOnce() -> Vec<u8>) {
        if self.pending.capacity() == 0 {
            self.pending = buffer();
        }
    }

    /// Encoded, not written yet.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    pub fn durable_end(&self) -> u64 {
        self.durable
    }

    /// Seals and encodes a record behind the pending ones. What stands before the pending ones is durable when they are written, or they never are.
    pub fn put(&mut self, header: &mut RecordHeaderV1, reply: &[u8], body: &[u8]) {
        let begin = self.durable + self.under_way;
        header.synced_through = begin;
        let offset = begin + self.pending.len() as u64;
        let sealed_len = 4 + reply.len() + body.len() + SEAL_BYTES;
        self.pending.reserve(PREFIX_BYTES + RECORD_HEADER_BYTES_MAX + sealed_len + BODY_CRC_BYTES);
        let bound = format::put_record_header(&mut self.pending, &self.header.id, header, sealed_len);
        let start = self.pending.len();
        self.pending.extend_from_slice(&(reply.len() as u32).to_le_bytes());
        self.pending.extend_from_slice(reply);
        self.pending.extend_from_slice(body);
        let (head, text) = self.pending.split_at_mut(start);
        let tag = self.sealer.seal(&header.nonce, offset, &head[bound], text);
        self.pending.extend_from_slice(&tag);
        let end = self.pending.len();
        format::put_body_crc(&mut self.pending, start..end);
    }

    /// The pending records as a job; those that are put from now on stand behind them. One at a time.
    pub fn job(&mut self) -> Job {
        debug_assert_eq!(self.under_way, 0, "what was under way has landed");
        let bytes = std::mem::take(&mut self.pending);
        self.under_way = bytes.len() as u64;
        Job { file: Arc::clone(&self.file), begin: self.begin.take(), offset: self.durable, bytes }
    }

    /// The job succeeded; says how far the segment is durable.
    pub fn landed(&mut self) -> u64 {
        self.durable += std::mem::take(&mut self.under_way);
        self.durable
    }

    /// Where it ends when what is under way has landed.
    pub fn end(&self) -> u64 {
        self.durable + self.under_way
    }

    /// Nothing goes into it any more.
    pub fn close(self, lane: Lane, segment: &Segment) -> Closing {
        debug_assert_eq!((self.under_way, self.pending.len()), (0, 0), "everything in it is durable");
        let (ordinal, offset) = (self.header.ordinal, self.durable);
        Closing { lane, ordinal, file: self.file, offset, footer: format::encode_footer(&footer_of(segment)) }
    }
}

/// Best effort: an empty segment that stays is removed when the spool is opened.
pub fn remove_unused(disk: &dyn Disk, path: &Path) {
    if let Err(error) = disk.remove(path) {
        tracing::warn!(path = %path.display(), "an unused segment file could not be removed: {error}");
    }
}

/// The footer that says what a segment holds.
pub fn footer_of(segment: &Segment) -> FooterV1 {
    let spans = segment.spans.iter().map(|(feed, span)| SpanV1 {
        feed: feed.to_string(),
        first: span.first,
        last: span.last,
        count: span.count,
        chain: span.chain,
        first_received_ms: span.first_received_ms,
        files: span.files,
    });
    FooterV1 { id: segment.id, data_end: segment.durable_end, spans: spans.collect(), removed: Vec::new() }
}
