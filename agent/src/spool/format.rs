//! Bytes on disk: the frozen structs of the journal and how they are framed.
//!
//! ```text
//! segment    0 KiB  header, first copy      magic ‖ len u32 ‖ crc u32 ‖ SegmentHeader
//!           32 KiB  header, second copy     (one damaged sector must not cost a segment)
//!           64 KiB  records, one after the other
//!              …    footer                  magic ‖ Footer ‖ len u32 ‖ crc u32 ‖ magic     only in a closed segment, ends the file
//!
//! record     prefix 16 bytes: magic u32 ‖ header len u16 ‖ version u8 ‖ flags u8 ‖ sealed len u32 ‖ header crc u32
//!            header (postcard), sealed body (reply len u32 ‖ reply ‖ body, then the tag of 16 bytes), body crc u32
//! ```
//!
//! All checksums are CRC-32C. A record's header checksum starts from the segment's random id, so that a record of another segment, or of the
//! file that had these blocks before, is never taken for one of this segment. Header and body are checked apart: a damaged body still tells
//! which seq was lost.
//!
//! Structs are frozen: a change is a new version (enum variant), never another field. Golden-byte tests hold them.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::record::{Chain, Content, Digest, FilePlace, FileProgress, Incarnation, Nonce, Position, Stage};

/// Space for one copy of the segment header.
pub const SEGMENT_HEADER_COPY: u64 = 32 * limits::KIB;
/// Where records begin.
pub const DATA_START: u64 = 2 * SEGMENT_HEADER_COPY;
/// Space kept free for the footer when a segment is filled.
pub const FOOTER_RESERVE: u64 = 32 * limits::KIB;
/// Bytes before a record's header.
pub const PREFIX_BYTES: usize = 16;
/// Bytes after a record's sealed body.
pub const BODY_CRC_BYTES: usize = 4;

const SEGMENT_MAGIC: [u8; 8] = *b"SWSEGMT1";
const FOOTER_MAGIC: [u8; 8] = *b"SWFOOTR1";
/// What a record begins with; the scan looks for it after damage.
pub const RECORD_MAGIC: [u8; 4] = [0xA7, b'S', b'W', b'R'];
const RECORD_V1: u8 = 1;

/// Random id of a segment file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SegmentId(pub [u8; 16]);

impl std::fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Incarnation(self.0).fmt(f)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SegmentHeader {
    V1(SegmentHeaderV1),
}

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentHeaderV1 {
    pub id: SegmentId,
    /// Index in `Lane::ALL`.
    pub lane: u8,
    /// Counts up within the lane; also the file's name.
    pub ordinal: u64,
    /// Which spool key sealed it (rotation comes later; now 0).
    pub key_generation: u32,
    /// Bit 0: rewritten and compressed (comes later; now 0).
    pub flags: u32,
    /// Every record in it belongs to this incarnation.
    pub incarnation: Incarnation,
    /// The segment before, and where its durable records end: what stands behind that place there was never answered.
    pub predecessor: Option<PredecessorV1>,
    /// Every feed's durable head when the segment was made.
    pub bases: Vec<BaseV1>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PredecessorV1 {
    pub id: SegmentId,
    pub valid_len: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseV1 {
    pub feed: String,
    /// What the feed's current incarnation follows.
    pub follows: Option<Position>,
    pub head_seq: u64,
    pub head_chain: Chain,
    pub files: Option<FileProgress>,
}

/// The header of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordHeaderV1 {
    pub feed: String,
    pub seq: u64,
    /// [`FLAG_CLOCK_SUSPECT`], [`FLAG_CONTROL_ID_REUSED`], [`FLAG_HAS_IDENTITY`], [`FLAG_TEST`], [`FLAG_SHADOW`], [`FLAG_BATCH_MISMATCH`],
    /// [`FLAG_FILE_REPEATED`].
    pub flags: u32,
    /// The chain before this record; the chain after it follows from seq and digest.
    pub chain_before: Chain,
    pub digest: Digest,
    pub nonce: Nonce,
    /// Everything of this segment before this offset was synced when the record was written.
    pub synced_through: u64,
    pub received_at_ms: i64,
    pub identity_fingerprint: [u8; 16],
    pub body_fingerprint: [u8; 16],
    pub control_id: Vec<u8>,
    pub origin: OriginV1,
    /// The earlier record of the same message, where this one is a deliberate resend.
    pub resend_of: Option<u64>,
}

pub const FLAG_CLOCK_SUSPECT: u32 = 1;
pub const FLAG_CONTROL_ID_REUSED: u32 = 2;
pub const FLAG_HAS_IDENTITY: u32 = 4;
/// Its stage; neither of the two is `live`.
pub const FLAG_TEST: u32 = 8;
pub const FLAG_SHADOW: u32 = 16;
/// A batch whose counts do not add up.
pub const FLAG_BATCH_MISMATCH: u32 = 32;

/// The bits of a stage.
pub fn stage_flag(stage: Stage) -> u32 {
    match stage {
        Stage::Test => FLAG_TEST,
        Stage::Shadow => FLAG_SHADOW,
        Stage::Live => 0,
    }
}

/// The stage in a record's flags.
pub fn stage_of(flags: u32) -> Stage {
    match (flags & FLAG_TEST != 0, flags & FLAG_SHADOW != 0) {
        (true, _) => Stage::Test,
        (false, true) => Stage::Shadow,
        (false, false) => Stage::Live,
    }
}
/// The same content was captured before from a file of another name or time of change.
pub const FLAG_FILE_REPEATED: u32 = 64;

/// Where a record came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OriginV1 {
    Peer {
        peer: String,
    },
    File {
        place: FilePlace,
        start_offset: u64,
        /// Empty unless the feed says that names may be shown.
        name: String,
        content: Content,
    },
    Http {
        peer: String,
        media_type: String,
    },
}

impl RecordHeaderV1 {
    /// The chain after this record.
    pub fn chain(&self) -> Chain {
        self.chain_before.after(self.seq, &self.digest)
    }

    /// How far its feed came with it, where it is of a file.
    pub fn files(&self) -> Option<FileProgress> {
        match self.origin {
            OriginV1::Peer { .. } | OriginV1::Http { .. } => None,
            OriginV1::File { place, .. } => Some(FileProgress { seq: self.seq, place }),
        }
    }
}

/// What a closed segment holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Footer {
    V1(FooterV1),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FooterV1 {
    pub id: SegmentId,
    pub data_end: u64,
    pub spans: Vec<SpanV1>,
    /// Settled ranges taken out by the rewriter (comes later; now empty).
    pub removed: Vec<(String, u64, u64)>,
}

/// One feed's records in a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanV1 {
    pub feed: String,
    pub first: u64,
    pub last: u64,
    pub count: u64,
    /// The chain after `last`.
    pub chain: Chain,
    pub first_received_ms: i64,
    /// Its newest record of a file.
    pub files: Option<FileProgress>,
}

fn seed(id: &SegmentId) -> u32 {
    crc32c::crc32c(&id.0)
}

fn postcard_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("serialising to memory cannot fail")
}

/// Reads a value that must fill `bytes` exactly.
pub fn from_postcard<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    postcard::take_from_bytes(bytes).ok().and_then(|(value, rest)| rest.is_empty().then_some(value))
}

/// `magic ‖ len ‖ crc ‖ value`: segment headers and heads.
pub fn encode_block<T: Serialize>(magic: [u8; 8], value: &T) -> Vec<u8> {
    let payload = postcard_bytes(value);
    let mut out = Vec::with_capacity(payload.len() + 16);
    out.extend_from_slice(&magic);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
    out.extend_from_slice(&payload);
    out
}

/// Reads what [`encode_block`] wrote; `None` for anything else. Trailing bytes are ignored (the space is preallocated).
pub fn decode_block<'a, T: Deserialize<'a>>(magic: [u8; 8], bytes: &'a [u8]) -> Option<T> {
    let rest = bytes.strip_prefix(&magic)?;
    let len = u32::from_le_bytes(rest.get(..4)?.try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(rest.get(4..8)?.try_into().ok()?);
    let payload = rest.get(8..8 + len)?;
    (crc32c::crc32c(payload) == crc).then(|| from_postcard(payload)).flatten()
}

pub fn encode_segment_header(header: &SegmentHeaderV1) -> Vec<u8> {
    encode_block(SEGMENT_MAGIC, &SegmentHeader::V1(header.clone()))
}

pub fn decode_segment_header(bytes: &[u8]) -> Option<SegmentHeaderV1> {
    decode_block(SEGMENT_MAGIC, bytes).map(|SegmentHeader::V1(header)| header)
}

pub fn encode_footer(footer: &FooterV1) -> Vec<u8> {
    let payload = postcard_bytes(&Footer::V1(footer.clone()));
    let mut out = Vec::with_capacity(payload.len() + 24);
    out.extend_from_slice(&FOOTER_MAGIC);
    out.extend_from_slice(&payload);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c_append(seed(&footer.id), &payload).to_le_bytes());
    out.extend_from_slice(&FOOTER_MAGIC);
    out
}

/// Bytes at the end of a file that tell how long its footer is.
pub const FOOTER_TAIL: usize = 16;

/// Length of the whole footer, from the last [`FOOTER_TAIL`] bytes of a file.
pub fn footer_len(tail: &[u8]) -> Option<u64> {
    let len = u32::from_le_bytes(tail.get(..4)?.try_into().ok()?);
    (tail.len() == FOOTER_TAIL && tail[8..] == FOOTER_MAGIC && u64::from(len) <= limits::MIB).then_some(u64::from(len) + 24)
}

/// Reads a whole footer of segment `id`.
pub fn decode_footer(id: &SegmentId, bytes: &[u8]) -> Option<FooterV1> {
    let (body, tail) = bytes.split_at_checked(bytes.len().checked_sub(FOOTER_TAIL)?)?;
    let payload = body.strip_prefix(&FOOTER_MAGIC)?;
    let (len, crc) = (u32::from_le_bytes(tail[..4].try_into().ok()?), u32::from_le_bytes(tail[4..8].try_into().ok()?));
    if len as usize != payload.len() || tail[8..] != FOOTER_MAGIC {
        return None;
    }
    let Footer::V1(footer) = (crc32c::crc32c_append(seed(id), payload) == crc).then(|| from_postcard(payload)).flatten()?;
    (footer.id == *id).then_some(footer)
}

/// Where the parts of an encoded record lie, relative to its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordLayout {
    pub header: Range<usize>,
    /// Sealed body with its tag.
    pub sealed: Range<usize>,
    pub total: usize,
}

/// Appends prefix and header of a record to `out`; `sealed_len` bytes and their checksum must follow. Returns what the seal binds as
/// associated data: the range of prefix and header in `out`.
pub fn put_record_header(out: &mut Vec<u8>, id: &SegmentId, header: &RecordHeaderV1, sealed_len: usize) -> Range<usize> {
    let start = out.len();
    out.extend_from_slice(&RECORD_MAGIC);
    out.extend_from_slice(&[0, 0, RECORD_V1, 0]);
    out.extend_from_slice(&(sealed_len as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    put_header(out, header);
    let len = out.len() - start - PREFIX_BYTES;
    assert!(len <= limits::RECORD_HEADER_BYTES_MAX, "the parts of a header are bounded");
    out[start + 4..start + 6].copy_from_slice(&(len as u16).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(seed(id), &out[start..start + 12]), &out[start + PREFIX_BYTES..]);
    out[start + 12..start + PREFIX_BYTES].copy_from_slice(&crc.to_le_bytes());
    start..out.len()
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A header as postcard has it, field by field: this is done for every record, and postcard goes byte by byte. A test holds the two together.
fn put_header(out: &mut Vec<u8>, header: &RecordHeaderV1) {
    put_bytes(out, header.feed.as_bytes());
    put_varint(out, header.seq);
    put_varint(out, u64::from(header.flags));
    out.extend_from_slice(&header.chain_before.0);
    out.extend_from_slice(&header.digest.0);
    out.extend_from_slice(&header.nonce.0);
    put_varint(out, header.synced_through);
    let at = header.received_at_ms;
    put_varint(out, (at.cast_unsigned() << 1) ^ (at >> 63).cast_unsigned());
    out.extend_from_slice(&header.identity_fingerprint);
    out.extend_from_slice(&header.body_fingerprint);
    put_bytes(out, &header.control_id);
    match &header.origin {
        OriginV1::Peer { peer } => {
            out.push(0);
            put_bytes(out, peer.as_bytes());
        }
        OriginV1::File { place, start_offset, name, content } => {
            out.push(1);
            out.extend_from_slice(&place.fingerprint.0);
            put_varint(out, place.index);
            put_varint(out, place.end_offset);
            out.push(u8::from(place.last));
            put_varint(out, *start_offset);
            put_bytes(out, name.as_bytes());
            out.push(*content as u8);
        }
        OriginV1::Http { peer, media_type } => {
            out.push(2);
            put_bytes(out, peer.as_bytes());
            put_bytes(out, media_type.as_bytes());
        }
    }
    match header.resend_of {
        None => out.push(0),
        Some(seq) => {
            out.push(1);
            put_varint(out, seq);
        }
    }
}

pub fn put_body_crc(out: &mut Vec<u8>, sealed: Range<usize>) {
    let crc = crc32c::crc32c(&out[sealed]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// What the 16 bytes before a header promise; `None` if no record can begin so.
pub fn record_layout(prefix: &[u8; PREFIX_BYTES]) -> Option<RecordLayout> {
    let header_len = usize::from(u16::from_le_bytes([prefix[4], prefix[5]]));
    let sealed_len = u32::from_le_bytes([prefix[8], prefix[9], prefix[10], prefix[11]]) as usize;
    let sealed_max = limits::MESSAGE_BYTES_MAX_RANGE.1 as usize + limits::REPLY_BYTES_MAX + 64;
    if prefix[..4] != RECORD_MAGIC || prefix[6] != RECORD_V1 || header_len > limits::RECORD_HEADER_BYTES_MAX || sealed_len > sealed_max {
        return None;
    }
    let sealed = PREFIX_BYTES + header_len..PREFIX_BYTES + header_len + sealed_len;
    Some(RecordLayout { header: PREFIX_BYTES..PREFIX_BYTES + header_len, total: sealed.end + BODY_CRC_BYTES, sealed })
}

/// Reads a record's header from prefix and header bytes; `None` if its checksum does not fit this segment.
pub fn decode_record_header(id: &SegmentId, bytes: &[u8]) -> Option<RecordHeaderV1> {
    let crc = u32::from_le_bytes(bytes.get(12..16)?.try_into().ok()?);
    let payload = &bytes[PREFIX_BYTES..];
    let ours = crc32c::crc32c_append(crc32c::crc32c_append(seed(id), &bytes[..12]), payload);
    (ours == crc).then(|| from_postcard(payload)).flatten()
}

pub fn body_is_whole(sealed: &[u8], crc: &[u8]) -> bool {
    crc32c::crc32c(sealed).to_le_bytes() == crc
}
