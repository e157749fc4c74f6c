//! The segment the committer writes to: made, filled batch by batch, closed with a footer.
//!
//! ```text
//!   create (blocks allocated) → header twice → fdatasync → directory sync      only now may a record go in
//!   put, put, put → flush: one write, one fdatasync                            only now is anything answered
//!   close: footer behind the last record, fdatasync, cut to length             a crash in between costs a scan, nothing else
//! ```
//!
//! A segment whose write or sync failed is given up: never written, synced or closed again. Its successor names where its durable records end.

use std::io;
use std::path::{Path, PathBuf};

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
    file: Box<dyn DiskFile>,
    sealer: Sealer,
    /// Records up to here are durable.
    durable: u64,
    /// Records may go up to here.
    capacity: u64,
    /// Encoded records behind `durable`, not written yet.
    pending: Vec<u8>,
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
        Ok(Self { header, file, sealer, durable: DATA_START, capacity: file_bytes - FOOTER_RESERVE, pending: Vec::new() })
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
        self.durable + self.pending.len() as u64 + bytes <= self.capacity
    }

    /// Encoded, not written yet.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    pub fn durable_end(&self) -> u64 {
        self.durable
    }

    /// Seals and encodes a record behind the pending ones.
    pub fn put(&mut self, mut header: RecordHeaderV1, reply: &[u8], body: &[u8]) {
        header.synced_through = self.durable;
        let offset = self.durable + self.pending.len() as u64;
        let sealed_len = 4 + reply.len() + body.len() + SEAL_BYTES;
        self.pending.reserve(PREFIX_BYTES + RECORD_HEADER_BYTES_MAX + sealed_len + BODY_CRC_BYTES);
        let bound = format::put_record_header(&mut self.pending, &self.header.id, &header, sealed_len);
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

    /// Writes and syncs what is pending. After an error the segment must be given up.
    pub fn flush(&mut self) -> io::Result<u64> {
        self.file.write_at(self.durable, &self.pending)?;
        self.file.sync_data()?;
        self.durable += self.pending.len() as u64;
        self.pending.clear();
        // One large message must not hold its memory for the life of the segment.
        self.pending.shrink_to(crate::limits::FLUSH_BYTES);
        Ok(self.durable)
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
