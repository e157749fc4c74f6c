//! Walking the records of a segment, past damage (I9).
//!
//! A record is believed when its header's checksum fits this segment. Where none begins, the scan searches on, byte by byte, for the next place
//! that does; it never stops at damage and never skips a whole valid record. Bodies are read and checked apart from headers, so that walking is
//! cheap and a damaged body still names its seq.

use std::io;
use std::sync::Arc;

use super::disk::DiskFile;
use super::format::{BODY_CRC_BYTES, PREFIX_BYTES, RECORD_MAGIC, RecordHeaderV1, RecordLayout, SegmentId};
use super::format::{body_is_whole, decode_record_header, record_layout};
use super::key::{SEAL_BYTES, Sealer};
use crate::limits;

/// Bytes read at once while walking.
const WINDOW_BYTES: u64 = 64 * limits::KIB;

const SECTOR_BYTES: u64 = 512;

/// A record found in a segment.
#[derive(Clone, Debug)]
pub struct Located {
    pub offset: u64,
    pub header: RecordHeaderV1,
    pub layout: RecordLayout,
    /// Bytes between the record before and this one that are no record: damage.
    pub skipped: u64,
}

impl Located {
    pub fn end(&self) -> u64 {
        self.offset + self.layout.total as u64
    }
}

/// Why a body cannot be had though its header is whole.
#[derive(Debug)]
pub enum BodyError {
    Io(io::Error),
    /// Checksum or seal do not fit.
    Damaged,
}

/// The two parts of a sealed body.
#[derive(Debug)]
pub struct Body {
    /// The positive answer, then the message.
    plain: Vec<u8>,
    reply_len: usize,
}

impl Body {
    pub fn reply(&self) -> &[u8] {
        &self.plain[4..4 + self.reply_len]
    }
    /// The message's bytes, without copying.
    pub fn into_message(self) -> bytes::Bytes {
        bytes::Bytes::from(self.plain).slice(4 + self.reply_len..)
    }
}

/// Reads like `read_at`, but takes what the disk cannot read, after a second try, for zeroes: 512 bytes at a time, so that a bad sector costs
/// the records it touches and nothing else. `bad` counts the sectors: who finds any must not destroy what may be readable tomorrow.
pub fn read_past_bad_sectors(file: &dyn DiskFile, offset: u64, into: &mut [u8], bad: &mut u64) -> io::Result<usize> {
    if let Ok(n) = file.read_at(offset, into).or_else(|_| file.read_at(offset, into)) {
        return Ok(n);
    }
    let len = file.len()?.saturating_sub(offset).min(into.len() as u64) as usize;
    let mut at = 0;
    while at < len {
        let sector_end = ((offset + at as u64) / SECTOR_BYTES + 1) * SECTOR_BYTES - offset;
        let end = len.min(sector_end as usize);
        if file.read_at(offset + at as u64, &mut into[at..end]).is_err() {
            into[at..end].fill(0);
            *bad += 1;
        }
        at = end;
    }
    Ok(len)
}

/// Walks one segment from `offset` to `end`.
#[derive(Debug)]
pub struct Scan {
    file: Arc<dyn DiskFile>,
    /// What cannot be read is damage, not an error.
    tolerant: bool,
    bad_sectors: u64,
    id: SegmentId,
    offset: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl Scan {
    pub fn new(file: Arc<dyn DiskFile>, id: SegmentId, offset: u64) -> Self {
        Self { file, tolerant: false, bad_sectors: 0, id, offset, window: Vec::new(), window_start: 0 }
    }

    /// From now on what the disk cannot read is taken for damage.
    pub fn tolerate(mut self) -> Self {
        self.tolerant = true;
        self
    }

    /// Sectors taken for damage so far.
    pub fn bad_sectors(&self) -> u64 {
        self.bad_sectors
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        if !self.tolerant {
            return self.file.read_at(offset, into);
        }
        read_past_bad_sectors(&*self.file, offset, into, &mut self.bad_sectors)
    }

    /// Forgets what was read ahead: the file has grown, or memory should be given back.
    pub fn rest(&mut self) {
        self.window = Vec::new();
    }

    /// `len` bytes at `offset`, all before `end`; fewer only where the file ends.
    fn bytes(&mut self, offset: u64, len: usize, end: u64) -> io::Result<&[u8]> {
        let have = self.window_start..self.window_start + self.window.len() as u64;
        let wanted_end = (offset + len as u64).min(end);
        if offset < have.start || wanted_end > have.end {
            let size = WINDOW_BYTES.max(len as u64).min(end.saturating_sub(offset));
            self.window.resize(size as usize, 0);
            let mut window = std::mem::take(&mut self.window);
            let read = self.read(offset, &mut window);
            self.window = window;
            // After an error nothing of the window can be believed: the next attempt reads again.
            self.window.truncate(*read.as_ref().unwrap_or(&0));
            self.window_start = offset;
            read?;
        }
        let from = ((offset - self.window_start) as usize).min(self.window.len());
        let to = (wanted_end.saturating_sub(self.window_start) as usize).clamp(from, self.window.len());
        Ok(&self.window[from..to])
    }

    fn record_at(&mut self, offset: u64, end: u64) -> io::Result<Option<(RecordHeaderV1, RecordLayout)>> {
        let prefix = self.bytes(offset, PREFIX_BYTES, end)?;
        let Ok(prefix) = <&[u8; PREFIX_BYTES]>::try_from(prefix) else { return Ok(None) };
        let Some(layout) = record_layout(prefix) else { return Ok(None) };
        if offset + layout.total as u64 > end {
            return Ok(None);
        }
        let id = self.id;
        let bytes = self.bytes(offset, layout.header.end, end)?;
        if bytes.len() < layout.header.end {
            return Ok(None);
        }
        Ok(decode_record_header(&id, bytes).map(|header| (header, layout)))
    }

    /// The next record that lies wholly before `end`.
    pub fn next(&mut self, end: u64) -> io::Result<Option<Located>> {
        let begun = self.offset;
        let mut at = self.offset;
        while at + PREFIX_BYTES as u64 <= end {
            if let Some((header, layout)) = self.record_at(at, end)? {
                self.offset = at + layout.total as u64;
                return Ok(Some(Located { offset: at, header, layout, skipped: at - begun }));
            }
            at = self.search(at + 1, end)?;
        }
        Ok(None)
    }

    /// The next place at or after `at` where a record's first byte stands; `end` if there is none.
    fn search(&mut self, mut at: u64, end: u64) -> io::Result<u64> {
        while at < end {
            let window = self.bytes(at, WINDOW_BYTES as usize, end)?;
            if window.is_empty() {
                return Ok(end);
            }
            if let Some(i) = window.iter().position(|b| *b == RECORD_MAGIC[0]) {
                return Ok(at + i as u64);
            }
            at += window.len() as u64;
        }
        Ok(end)
    }

    fn sealed(&mut self, located: &Located) -> Result<Vec<u8>, BodyError> {
        let start = located.offset + located.layout.sealed.start as u64;
        let mut bytes = vec![0u8; located.layout.sealed.len() + BODY_CRC_BYTES];
        let n = self.read(start, &mut bytes).map_err(BodyError::Io)?;
        let crc_at = located.layout.sealed.len();
        if n < bytes.len() || !body_is_whole(&bytes[..crc_at], &bytes[crc_at..]) {
            return Err(BodyError::Damaged);
        }
        bytes.truncate(crc_at);
        Ok(bytes)
    }

    /// Whether the body is as it was written; does not need the key.
    pub fn body_is_whole(&mut self, located: &Located) -> io::Result<bool> {
        match self.sealed(located) {
            Ok(_) => Ok(true),
            Err(BodyError::Damaged) => Ok(false),
            Err(BodyError::Io(error)) => Err(error),
        }
    }

    /// Opens the body.
    pub fn body(&mut self, sealer: &Sealer, located: &Located) -> Result<Body, BodyError> {
        let mut plain = self.sealed(located)?;
        let mut bound = vec![0u8; located.layout.header.end];
        let n = self.read(located.offset, &mut bound).map_err(BodyError::Io)?;
        let tag_at = plain.len().checked_sub(SEAL_BYTES).ok_or(BodyError::Damaged)?;
        let (text, tag) = plain.split_at_mut(tag_at);
        if n < bound.len() || sealer.open(&located.header.nonce, located.offset, &bound, text, tag).is_err() {
            return Err(BodyError::Damaged);
        }
        plain.truncate(tag_at);
        let reply_len = plain.get(..4).and_then(|len| len.try_into().ok()).map(u32::from_le_bytes).ok_or(BodyError::Damaged)? as usize;
        if plain.len() < 4 + reply_len {
            return Err(BodyError::Damaged);
        }
        Ok(Body { plain, reply_len })
    }
}
