//! Rows: records of one file on their way to the journal, in runs.
//!
//! ```text
//!   feed's thread   Rows::push: nonce, digest           what does not depend on the record's number is computed here, beside the committer
//!        │ bundle of runs, one answer
//!   committer       number, chain, seal ─► buffer ─► disk
//! ```
//!
//! A large file has millions of records that differ in a few numbers. What they have in common stands once in a run; a row has its place, its
//! body, and the digest that will go into the chain. A run cannot be made with another digest than that of its bodies. Memory: a run is what
//! its sender lets it become (`FILE_BUNDLE_*`, `FILE_WIDE_*`); it ends when its rows are encoded, before they are on disk.

use tokio::sync::oneshot;

use super::AppendError;
use super::format::{self, OriginV1, RecordHeaderV1};
use super::segment::record_bytes_max;
use crate::limits;
use crate::record::{Chain, Content, Digest, FeedId, FileFingerprint, FilePlace, Nonce, Payload, Stage};

/// What the records of a run have in common.
#[derive(Clone, Debug)]
pub struct RowsOf {
    pub feed: FeedId,
    pub file: FileFingerprint,
    /// Base name of the file, cut; empty unless the feed says that names may be shown.
    pub name: String,
    pub content: Content,
    /// The same content was captured before, under another time of change or name.
    pub repeated: bool,
    pub stage: Stage,
    pub batch_mismatch: bool,
    pub received_at_ms: i64,
    pub clock_suspect: bool,
}

/// A run of records of one file, in order.
#[derive(Debug)]
pub struct Rows {
    pub(super) of: RowsOf,
    /// What must be the feed's progress when the first of them is stored.
    pub(super) follows: Option<FilePlace>,
    pub(super) records: Vec<Row>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Row {
    index: u64,
    start_offset: u64,
    end_offset: u64,
    last: bool,
    pub(super) body: Payload,
    pub(super) nonce: Nonce,
    pub(super) digest: Digest,
}

impl Rows {
    pub fn new(of: RowsOf, follows: Option<FilePlace>) -> Self {
        Self { of, follows, records: Vec::new() }
    }

    /// Takes the next record: its place in the file, its first byte there, and its bytes.
    pub fn push(&mut self, nonces: &mut Nonces, place: &FilePlace, start_offset: u64, body: Payload) {
        debug_assert_eq!(place.fingerprint, self.of.file, "a run is of one file");
        let nonce = nonces.draw();
        let digest = Digest::of(&nonce, body.expose());
        let FilePlace { index, end_offset, last, .. } = *place;
        self.records.push(Row { index, start_offset, end_offset, last, body, nonce, digest });
    }

    pub fn file(&self) -> FileFingerprint {
        self.of.file
    }

    /// Most bytes those from `at` on take in a segment.
    pub(super) fn bytes_max(&self, at: usize) -> usize {
        self.records[at..].iter().map(|row| record_bytes_max(0, row.body.len()) as usize).sum()
    }

    pub(super) fn place(&self, row: &Row) -> FilePlace {
        FilePlace { fingerprint: self.of.file, index: row.index, end_offset: row.end_offset, last: row.last }
    }

    /// A header for all of them; what differs is put in by [`Rows::fill_header`].
    pub(super) fn header(&self) -> RecordHeaderV1 {
        let of = &self.of;
        let mut flags = format::stage_flag(of.stage);
        for (is_set, flag) in [
            (of.clock_suspect, format::FLAG_CLOCK_SUSPECT),
            (of.repeated, format::FLAG_FILE_REPEATED),
            (of.batch_mismatch, format::FLAG_BATCH_MISMATCH),
        ] {
            flags |= if is_set { flag } else { 0 };
        }
        RecordHeaderV1 {
            feed: of.feed.to_string(),
            seq: 0,
            flags,
            chain_before: Chain::GENESIS,
            digest: Digest([0; 32]),
            nonce: Nonce([0; 16]),
            synced_through: 0,
            received_at_ms: of.received_at_ms,
            identity_fingerprint: [0; 16],
            body_fingerprint: [0; 16],
            control_id: Vec::new(),
            origin: OriginV1::File {
                place: FilePlace { fingerprint: of.file, index: 0, end_offset: 0, last: false },
                start_offset: 0,
                name: of.name.chars().take(limits::FILE_NAME_CHARS_MAX).collect(),
                content: of.content,
            },
            resend_of: None,
        }
    }

    /// Makes the header that of one row; number and chain are the committer's.
    pub(super) fn fill_header(&self, row: &Row, header: &mut RecordHeaderV1) {
        (header.digest, header.nonce) = (row.digest, row.nonce);
        if let OriginV1::File { place, start_offset, .. } = &mut header.origin {
            (*place, *start_offset) = (self.place(row), row.start_offset);
        }
    }
}

/// Who waits for a bundle of runs.
pub(super) type Waiter = oneshot::Sender<Result<(), AppendError>>;

/// Runs that are answered together.
#[derive(Debug)]
pub(super) struct Bundle {
    pub(super) runs: Vec<Rows>,
    pub(super) waiter: Waiter,
}

impl Bundle {
    pub(super) fn body_bytes(&self) -> u64 {
        self.runs.iter().flat_map(|run| &run.records).map(|row| row.body.len() as u64).sum()
    }
}

/// Records of files on their way to the disk.
#[derive(Debug)]
pub struct Appending(pub(super) oneshot::Receiver<Result<(), AppendError>>);

impl Appending {
    /// Blocks until all of them are durable. After an error a first part of them may be; [`super::Appender::file_progress`] says how many.
    pub fn wait(self) -> Result<(), AppendError> {
        self.0.blocking_recv().unwrap_or(Err(AppendError::Stopping))
    }

    /// The answer, if there is one already.
    pub fn poll(&mut self) -> Option<Result<(), AppendError>> {
        match self.0.try_recv() {
            Ok(answer) => Some(answer),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(AppendError::Stopping)),
        }
    }
}

/// Random bytes drawn at once.
const RANDOM_BYTES: usize = 4096;

/// Nonces, from random bytes drawn in bulk.
#[derive(Debug)]
pub struct Nonces {
    random: Box<[u8; RANDOM_BYTES]>,
    /// So many of them are not used yet, at the front.
    left: usize,
}

impl Default for Nonces {
    fn default() -> Self {
        Self { random: Box::new([0; RANDOM_BYTES]), left: 0 }
    }
}

impl Nonces {
    pub(super) fn draw(&mut self) -> Nonce {
        if self.left < 16 {
            getrandom::fill(&mut *self.random).expect("the kernel gives random numbers once it has started");
            self.left = RANDOM_BYTES;
        }
        self.left -= 16;
        let nonce: [u8; 16] = self.random[self.left..][..16].try_into().expect("16 of them");
        Nonce(nonce)
    }
}
