//! The part of a file that a splitter holds: a buffer whose front is the record in progress.
//!
//! ```text
//!   file: ......... ┌─ base ────────── base + scanned ───────────────┐ not yet fed
//!   buffer:         │ record in progress │ rest, not looked at yet   │
//! ```
//!
//! 1. `Splitter::feed` puts bytes at the back. A format looks at [`Window::rest`] and moves its front into the record with
//!    [`Window::advance`].
//! 2. Where the record ends the format calls [`Window::take`]; what is not part of any record it drops with [`Window::skip`].
//! 3. A record that grows above the limit is dropped as it comes; its first bytes and its place in the file are kept, and `take` gives
//!    [`Taken::Over`]. So the buffer never holds more than the limit, the slack and what was fed at once (I4), and the format goes on
//!    looking for the end. When that takes more than the discard budget, or the format gives the file up ([`Window::close`]), the rest of
//!    the file is one piece of which only the head is kept.
//!
//! What is decided here depends on places in the file only, never on how it was cut into feeds.

use bytes::{Buf as _, Bytes, BytesMut};
use std::ops::Range;

use super::{PieceKind, SplitLimits, codes};
use crate::limits::{FRAME_OWN_BYTES, SPLIT_COPY_BYTES, SPLIT_FEED_BYTES};

/// What stood between two calls of `take` or `skip`.
pub(super) enum Taken {
    Whole { start: u64, bytes: Bytes },
    Over { range: Range<u64>, head: Bytes },
}

/// A piece that has no number yet.
pub(super) struct Cut {
    pub range: Range<u64>,
    pub row: Option<u64>,
    pub kind: PieceKind,
}

struct Dropped {
    start: u64,
    head: Vec<u8>,
}

pub(super) struct Window {
    limits: SplitLimits,
    buffer: BytesMut,
    base: u64,
    scanned: usize,
    dropped: Option<Dropped>,
    closed: bool,
    spent: bool,
    end: bool,
}

impl Window {
    pub(super) fn new(limits: SplitLimits) -> Self {
        Self { limits, buffer: BytesMut::new(), base: 0, scanned: 0, dropped: None, closed: false, spent: false, end: false }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if let (true, Some(dropped)) = (self.closed, &mut self.dropped) {
            let wanted = self.limits.bad_bytes.saturating_sub(dropped.head.len()).min(bytes.len());
            dropped.head.extend_from_slice(&bytes[..wanted]);
            self.base += bytes.len() as u64;
            return;
        }
        if self.buffer.len() + bytes.len() > FRAME_OWN_BYTES.max(2 * SPLIT_FEED_BYTES) {
            // one large block at once: growing by doubling would copy and overshoot
            let whole = self.limits.record_bytes + self.limits.slack_bytes + SPLIT_FEED_BYTES;
            self.buffer.reserve(whole.saturating_sub(self.buffer.len()).max(bytes.len()));
        }
        self.buffer.extend_from_slice(bytes);
    }

    pub(super) fn limits(&self) -> &SplitLimits {
        &self.limits
    }

    /// No more bytes will come.
    pub(super) fn end(&mut self) {
        self.end = true;
    }

    pub(super) fn is_end(&self) -> bool {
        self.end
    }

    /// Bytes not looked at yet.
    pub(super) fn rest(&self) -> &[u8] {
        &self.buffer[self.scanned..]
    }

    /// The record in progress; empty while it is being dropped.
    pub(super) fn record(&self) -> &[u8] {
        &self.buffer[..self.scanned]
    }

    pub(super) fn is_dropping(&self) -> bool {
        self.dropped.is_some()
    }

    /// Nothing of a record is there yet.
    pub(super) fn is_between(&self) -> bool {
        self.scanned == 0 && self.dropped.is_none()
    }

    /// Where the bytes not looked at begin.
    pub(super) fn at(&self) -> u64 {
        self.base + self.scanned as u64
    }

    pub(super) fn held(&self) -> usize {
        self.buffer.len()
    }

    /// All bytes that were fed.
    pub(super) fn fed(&self) -> u64 {
        self.base + self.buffer.len() as u64
    }

    /// The discard budget is spent.
    pub(super) fn is_spent(&self) -> bool {
        self.spent
    }

    /// Moves bytes into the record.
    pub(super) fn advance(&mut self, count: usize) {
        self.scanned += count;
        if self.dropped.is_none() && self.scanned > self.limits.record_bytes + self.limits.slack_bytes {
            let head = self.buffer[..self.limits.bad_bytes.min(self.scanned)].to_vec();
            self.dropped = Some(Dropped { start: self.base, head });
        }
        if let Some(dropped) = &self.dropped {
            self.buffer.advance(self.scanned);
            self.base += self.scanned as u64;
            self.scanned = 0;
            self.spent |= self.base - dropped.start > self.limits.discard_bytes;
        }
    }

    /// Gives bytes of the record back; only where it is not being dropped.
    pub(super) fn rewind(&mut self, record_bytes: usize) {
        debug_assert!(self.dropped.is_none() && record_bytes <= self.scanned, "only what is held can be given back");
        self.scanned = record_bytes;
    }

    /// Drops what was scanned: it belongs to no record, so it spends nothing either.
    pub(super) fn skip(&mut self) {
        self.spent = false;
        self.buffer.advance(self.scanned);
        self.base += self.scanned as u64;
        self.scanned = 0;
        self.dropped = None;
    }

    /// The record in progress; the next one begins behind it.
    pub(super) fn take(&mut self) -> Taken {
        let start = self.base;
        if let Some(dropped) = &mut self.dropped {
            let (range, head) = (dropped.start..start, Bytes::from(dropped.head.clone()));
            if !self.spent {
                self.dropped = None;
            }
            return Taken::Over { range, head };
        }
        let count = std::mem::take(&mut self.scanned);
        self.base += count as u64;
        let bytes = if count < SPLIT_COPY_BYTES {
            let bytes = Bytes::copy_from_slice(&self.buffer[..count]);
            self.buffer.advance(count);
            bytes
        } else {
            let bytes = self.buffer.split_to(count).freeze();
            if count > FRAME_OWN_BYTES && self.buffer.len() <= SPLIT_FEED_BYTES {
                self.buffer = BytesMut::from(&self.buffer[..]); // so that the large block goes with its record
            }
            bytes
        };
        Taken::Whole { start, bytes }
    }

    /// Gives the file up: what is in progress and all that follows becomes one piece, told at the end.
    pub(super) fn close(&mut self) {
        if self.closed {
            return;
        }
        self.closed = true;
        let start = self.base;
        let dropped = self.dropped.get_or_insert(Dropped { start, head: Vec::new() });
        let wanted = self.limits.bad_bytes.saturating_sub(dropped.head.len()).min(self.buffer.len());
        dropped.head.extend_from_slice(&self.buffer[..wanted]);
        self.base += self.buffer.len() as u64;
        self.buffer = BytesMut::new();
        self.scanned = 0;
    }

    /// The rest of a file that was given up.
    pub(super) fn take_closed(&mut self) -> Option<(Range<u64>, Bytes)> {
        let dropped = self.dropped.take()?;
        (dropped.start < self.base).then(|| (dropped.start..self.base, Bytes::from(dropped.head)))
    }

    /// A piece that holds bytes as they are, unless they are too many.
    pub(super) fn record_cut(&self, start: u64, bytes: Bytes, row: Option<u64>) -> Cut {
        if bytes.len() > self.limits.record_bytes {
            return self.bad_cut(codes::RECORD_OVER_LIMIT, start, &bytes, row);
        }
        Cut { range: start..start + bytes.len() as u64, row, kind: PieceKind::Record(bytes) }
    }

    pub(super) fn bad_cut(&self, code: &'static str, start: u64, bytes: &[u8], row: Option<u64>) -> Cut {
        let head = Bytes::copy_from_slice(&bytes[..bytes.len().min(self.limits.bad_bytes)]);
        Cut { range: start..start + bytes.len() as u64, row, kind: PieceKind::Bad { code, bytes: head } }
    }

    /// A byte order mark at the very front; `None` until enough was fed to know.
    pub(super) fn preamble(&mut self) -> Option<Preamble> {
        if self.at() > 0 || !self.is_between() {
            return Some(Preamble::Text);
        }
        let rest = self.rest();
        if rest.len() < 3 && !self.end {
            return None;
        }
        if rest.starts_with(b"\xEF\xBB\xBF") {
            self.advance(3);
            self.skip();
        } else if rest.starts_with(b"\xFF\xFE") || rest.starts_with(b"\xFE\xFF") {
            return Some(Preamble::Utf16);
        }
        Some(Preamble::Text)
    }
}

/// What the first bytes of a file say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Preamble {
    Text,
    Utf16,
}

pub(super) fn over_cut(range: Range<u64>, head: Bytes, row: Option<u64>) -> Cut {
    Cut { range, row, kind: PieceKind::Bad { code: codes::RECORD_OVER_LIMIT, bytes: head } }
}

/// The bytes without blanks and line ends around them, and how many were in front.
pub(super) fn trimmed(bytes: &Bytes) -> (u64, Bytes) {
    let front = bytes.len() - bytes.trim_ascii_start().len();
    let kept = bytes.trim_ascii().len();
    (front as u64, bytes.slice(front..front + kept))
}
