//! The segment the committer writes to: made, filled batch by batch, closed with a footer.
//!
//! ```text
//!   create (blocks allocated) → header twice → fdatasync → directory sync      only now may a record go in
//!   put, put, put → job: one write, one fdatasync                              only now is anything answered
//!                     └ put, put, … behind it while it runs                    never written unless it succeeded
//!   close: footer behind the last record, fdatasync, cut to length             a crash in between costs a scan, nothing else
//! ```
//!
//! A segment whose write or sync failed is given up: never written, synced or closed again. Its successor names where its durable records end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
}

/// What is to be written and synced, by whichever thread.
#[derive(Debug)]
pub struct Job {
    file: Arc<dyn DiskFile>,
    offset: u64,
    bytes: Vec<u8>,
}

/// What came of it, and the buffer.
#[derive(Debug)]
pub struct Done {
    pub outcome: io::Result<()>,
    pub bytes: Vec<u8>,
}

impl Job {
    /// After an error the segment must be given up.
    pub fn run(self) -> Done {
        let written = self.file.write_at(self.offset, &self.bytes);
        Done { outcome: written.and_then(|()| self.file.sync_data()), bytes: self.bytes }
    }
}

impl Writer {
    /// Makes the segment's file; when this returns `Ok`, file, header and name are durable. On an error nothing of it is left, or what is left
    /// holds no record.
    pub fn create(disk: &dyn Disk, path: &Path, header: SegmentHeaderV1, key: &SpoolKey, file_bytes: u64) -> io::Result<Self> {
        let file = disk.create(path, file_bytes)?;
        if let Err(error) = Self::prepare(disk, path, &*file, &header) {
            drop(file);
            // Best effort: an empty segment that stays is removed when the spool is opened.
            if let Err(also) = disk.remove(path) {
                tracing::warn!(path = %path.display(), "an unused segment file could not be removed: {also}");
            }
            return Err(error);
        }
        let sealer = key.sealer(&header.id);
        let (file, capacity) = (Arc::from(file), file_bytes - FOOTER_RESERVE);
        Ok(Self { header, file, sealer, durable: DATA_START, under_way: 0, capacity, pending: Vec::new() })
    }

    fn prepare(disk: &dyn Disk, path: &Path, file: &dyn DiskFile, header: &SegmentHeaderV1) -> io::Result<()> {
        let bytes = format::encode_segment_header(header);
        if bytes.len() as u64 > format::SEGMENT_HEADER_COPY {
            return Err(io::Error::other("the segment header does not fit its space; too many feeds"));
        }
        file.write_at(0, &bytes)?;
        file.write_at(format::SEGMENT_HEADER_COPY, &bytes)?;
        file.sync_data()?;
        disk.sync_dir(path.parent().expect("a segment lies in its lane's directory"))
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
        Job { file: Arc::clone(&self.file), offset: self.durable, bytes }
    }

    /// The job succeeded; says how far the segment is durable.
    pub fn landed(&mut self) -> u64 {
        self.durable += std::mem::take(&mut self.under_way);
        self.durable
    }

    /// Writes the footer and gives back what was allocated and not used; returns the file's length. An error costs a scan at the next start.
    pub fn close(self, segment: &Segment) -> io::Result<u64> {
        let footer = format::encode_footer(&footer_of(segment));
        let len = self.durable + footer.len() as u64;
        self.file.write_at(self.durable, &footer)?;
        self.file.set_len(len)?;
        self.file.sync_data()?;
        Ok(len)
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
