//! Where a message without framing ends (`unframed = true` on a listener). Pure, part of the framer.
//!
//! A run of bytes between frames that begins with `MSH` is a message. It ends, whichever comes first,
//!
//! 1. at 0x1C: the sender only forgot the start;
//! 2. where the next message begins: 0x0B, or `MSH` behind CR or LF;
//! 3. when the connection has been silent for `UNFRAMED_SILENCE`, or was closed in order;
//!
//! but by 2 and 3 only behind the end of a segment (CR or LF; NULs and blanks after it do not count). Anything else is half a message: it is
//! never taken nor answered, and the frame timeout ends it. What no rule can see: a sender that pauses between two segments for longer than
//! the silence, or dies exactly there, has half a message taken. If it goes on, that shows: bytes that are no beginning of a message after
//! an end that was only a silence ([`super::Event::UnframedRest`]) end the connection, are kept, and raise a condition.

use super::{END, START};

/// How a message without framing begins.
pub(super) const BEGIN: &[u8] = b"MSH";

/// Why a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// 0x1C, which is not part of anything.
    End,
    /// 0x0B: a frame begins behind it.
    Start,
    /// The next message begins here.
    Next,
}

/// The first mark at or behind `from`, which may lie up to `BEGIN.len()` bytes before what is new.
pub(super) fn mark(bytes: &[u8], from: usize) -> Option<(usize, Mark)> {
    let found = |(at, byte): (usize, &u8)| match *byte {
        END => Some((at, Mark::End)),
        START => Some((at, Mark::Start)),
        b'M' if at > 0 && is_line_end(bytes[at - 1]) && bytes[at..].starts_with(BEGIN) => Some((at, Mark::Next)),
        _ => None,
    };
    bytes.iter().enumerate().skip(from).find_map(found)
}

/// Whether a message may end behind these bytes.
pub(super) fn ends_segment(bytes: &[u8]) -> bool {
    bytes.iter().rev().find(|byte| !matches!(**byte, 0 | b' ')).is_some_and(|byte| is_line_end(*byte))
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}
