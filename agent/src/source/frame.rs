//! MLLP framing: bytes in, events out; no I/O, no time, no opinion about HL7.
//!
//! ```text
//!            0x0B                    0x1C → Frame
//! Between ─────────► Inside ──────────────────────► Between
//!    ▲  other bytes:   │  0x0B → Restarted, Inside again
//!    │  skipped or     │  longer than own_bytes → NeedsSlot, held until `grant`
//!    │  counted        ▼  longer than message_bytes → OverLimit
//!    └──────────── Discarding: head kept, rest dropped up to 0x1C → Oversize
//!                                                    any budget spent → Closed
//! ```
//!
//! 1. The connection reads into [`Framer::buffer`], then takes events from [`Framer::next_event`] until there is none, then reads again.
//! 2. A message is complete at 0x1C. The 0x0D that should follow, and the LF, NUL and blanks that some senders add, are skipped when they
//!    come.
//! 3. Any other byte between frames is junk: counted, told as one event a run, and too much of it ends the connection. The very first bytes
//!    of a connection may show a TLS or HTTP client; that is told at once, because nothing good can follow.
//! 4. The events depend on the byte stream only, never on how it was cut into reads, and each comes with the byte that decides it
//!    (`frame/reference.rs` says the same of a whole stream at once; tests and a fuzz target compare the two).
//!
//! Memory (I4): a frame up to `own_bytes` lives in the connection's own allowance. Above that the framer stops with [`Event::NeedsSlot`]
//! until [`Framer::grant`] is called; then room for a whole message is reserved at once, so that growing never copies and never overshoots.
//! When the frame ends the little that was read behind it moves to a small buffer of its own, so the large block is freed with the frame.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use bytes::{Buf as _, BytesMut};
use memchr::memchr2;
use std::fmt;

use crate::limits::{FRAME_OWN_BYTES, JUNK_BYTES_MAX, JUNK_PREFIX_BYTES, OVERSIZE_DISCARD_BYTES, OVERSIZE_HEAD_BYTES, SOCKET_READ_BYTES};
use crate::record::Payload;

/// First byte of a frame.
pub const START: u8 = 0x0B;
/// Ends the message.
pub const END: u8 = 0x1C;

/// The bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct FrameLimits {
    /// Largest message, in bytes.
    pub message_bytes: usize,
    /// Largest part of a frame held without a slot, in bytes.
    pub own_bytes: usize,
    /// Kept of a frame above `message_bytes`.
    pub head_bytes: usize,
    /// Most bytes of one such frame read while looking for its end; more than `message_bytes`.
    pub discard_bytes: u64,
    /// Most junk between two frames.
    pub junk_bytes: u64,
}

impl FrameLimits {
    pub fn new(message_bytes: usize) -> Self {
        Self {
            message_bytes,
            own_bytes: FRAME_OWN_BYTES.min(message_bytes),
            head_bytes: OVERSIZE_HEAD_BYTES.min(message_bytes),
            discard_bytes: OVERSIZE_DISCARD_BYTES,
            junk_bytes: JUNK_BYTES_MAX,
        }
    }
}

/// What the bytes say. After `Foreign`, `JunkBudgetSpent` and `DiscardBudgetSpent` nothing more comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message, without framing.
    Frame(Payload),
    /// A frame began inside a frame: what the sender left of the first one. Must never be answered positively.
    Restarted {
        partial: Payload,
    },
    /// The frame outgrew the connection's own allowance. Nothing goes on until `grant`.
    NeedsSlot,
    /// The frame outgrew `message_bytes`; the rest of it is being discarded.
    OverLimit,
    /// A frame over the limit reached its end after `total` bytes.
    Oversize {
        head: Payload,
        total: u64,
    },
    /// A run of junk ended at the start of a frame.
    Junk {
        bytes: u64,
        class: JunkClass,
    },
    /// A run of junk begins like an HL7 message: a sender that does not frame. Told once a run, when it is recognised.
    Unframed,
    /// The connection does not speak MLLP at all.
    Foreign(Foreign),
    JunkBudgetSpent {
        bytes: u64,
        class: JunkClass,
    },
    DiscardBudgetSpent {
        head: Payload,
        total: u64,
    },
}

/// What a run of junk looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JunkClass {
    Other,
    /// Begins with MSH, FHS or BHS.
    UnframedMessage,
}

/// Who else knocks at an MLLP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    TlsHello,
    HttpRequest,
}

/// What a connection left behind when it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remainder {
    Nothing,
    /// A frame without its end (of one over the limit: its head).
    Partial(Payload),
    Junk {
        bytes: u64,
        class: JunkClass,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    None,
    Wanted,
    Granted,
}

enum State {
    Between(JunkRun),
    /// The buffer's front is the frame; its first `scanned` bytes hold no mark.
    Inside {
        scanned: usize,
        slot: Slot,
    },
    Discarding {
        head: Payload,
        total: u64,
    },
    Closed,
}

/// Incremental framer of one connection.
pub struct Framer {
    limits: FrameLimits,
    buffer: BytesMut,
    state: State,
    /// Frames begun, for the connection's frame timer.
    frames: u64,
    /// Nothing but skipped bytes came yet.
    fresh: bool,
}

impl fmt::Debug for Framer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Framer").field("buffered", &self.buffer.len()).field("frames", &self.frames).finish_non_exhaustive()
    }
}

impl Framer {
    pub fn new(limits: FrameLimits) -> Self {
        Self { limits, buffer: BytesMut::new(), state: State::Between(JunkRun::default()), frames: 0, fresh: true }
    }

    /// Where to read into; at most `SOCKET_READ_BYTES` between two rounds of events.
    pub fn buffer(&mut self) -> &mut BytesMut {
        if self.buffer.is_empty() && self.buffer.capacity() > 2 * SOCKET_READ_BYTES && !self.is_large() {
            self.buffer = BytesMut::new();
        }
        self.buffer.reserve(SOCKET_READ_BYTES);
        &mut self.buffer
    }

    /// The number of the frame being received (the first is 1), if one is.
    pub fn frame_in_progress(&self) -> Option<u64> {
        matches!(self.state, State::Inside { .. } | State::Discarding { .. }).then_some(self.frames)
    }

    /// Whether the frame being received occupies a slot.
    pub fn is_large(&self) -> bool {
        matches!(self.state, State::Inside { slot: Slot::Granted, .. })
    }

    /// Answers `NeedsSlot`: room for a whole message is there.
    pub fn grant(&mut self) {
        if let State::Inside { slot, .. } = &mut self.state
            && *slot == Slot::Wanted
        {
            *slot = Slot::Granted;
            let whole = self.limits.message_bytes + 1 + SOCKET_READ_BYTES;
            self.buffer.reserve(whole.saturating_sub(self.buffer.len()));
        }
    }

    /// The next thing the bytes read so far say; `None`: read more.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            match self.state {
                State::Closed => {
                    self.buffer.clear();
                    return None;
                }
                State::Inside { slot: Slot::Wanted, .. } => return Some(Event::NeedsSlot),
                _ if self.buffer.is_empty() => return None,
                State::Between(_) => {
                    if let Some(event) = self.between() {
                        return Some(event);
                    }
                }
                State::Inside { .. } => return self.inside(),
                State::Discarding { .. } => return self.discarding(),
            }
        }
    }

    /// What is left when the connection ended.
    pub fn finish(&mut self) -> Remainder {
        let left = match std::mem::replace(&mut self.state, State::Closed) {
            State::Inside { .. } if !self.buffer.is_empty() => Remainder::Partial(Payload::new(self.buffer.split().freeze())),
            State::Discarding { head, .. } => Remainder::Partial(head),
            State::Between(JunkRun { bytes, class, .. }) if bytes > 0 => Remainder::Junk { bytes, class },
            _ => Remainder::Nothing,
        };
        self.buffer = BytesMut::new();
        left
    }

    /// Consumes bytes up to the next event or the start of a frame.
    fn between(&mut self) -> Option<Event> {
        let State::Between(run) = &mut self.state else { return None };
        let mut used = 0;
        let mut event = None;
        for &byte in &self.buffer {
            used += 1;
            if byte == START {
                if run.bytes > 0 {
                    event = Some(Event::Junk { bytes: run.bytes, class: run.class });
                }
                self.state = State::Inside { scanned: 0, slot: Slot::None };
                self.frames += 1;
                self.fresh = false;
                break;
            }
            let told = run.push(byte, self.fresh);
            if let Some(Told::Foreign(foreign)) = told {
                event = Some(Event::Foreign(foreign));
                self.state = State::Closed;
                break;
            }
            if run.bytes > self.limits.junk_bytes {
                event = Some(Event::JunkBudgetSpent { bytes: run.bytes, class: run.class });
                self.state = State::Closed;
                break;
            }
            if let Some(Told::Unframed) = told {
                event = Some(Event::Unframed);
                break;
            }
        }
        self.buffer.advance(used);
        event
    }

    /// Looks for the end of the frame at the buffer's front.
    fn inside(&mut self) -> Option<Event> {
        let State::Inside { scanned, slot } = &mut self.state else { return None };
        let allowed = if *slot == Slot::Granted { self.limits.message_bytes } else { self.limits.own_bytes };
        let window = self.buffer.len().min(allowed + 1);
        if let Some(offset) = mark(&self.buffer[*scanned..window]) {
            let at = *scanned + offset;
            let large = *slot == Slot::Granted;
            let restarted = self.buffer[at] == START;
            let frame = Payload::new(self.buffer.split_to(at).freeze());
            self.buffer.advance(1);
            if large {
                self.buffer = BytesMut::from(&self.buffer[..]);
            }
            return Some(if restarted {
                self.frames += 1;
                self.state = State::Inside { scanned: 0, slot: Slot::None };
                Event::Restarted { partial: frame }
            } else {
                self.ended();
                Event::Frame(frame)
            });
        }
        *scanned = window;
        if window <= allowed {
            return None;
        }
        if allowed < self.limits.message_bytes {
            *slot = Slot::Wanted;
            return Some(Event::NeedsSlot);
        }
        let head = bytes::Bytes::copy_from_slice(&self.buffer[..self.limits.head_bytes]);
        self.buffer = BytesMut::from(&self.buffer[window..]);
        self.state = State::Discarding { head: Payload::new(head), total: window as u64 };
        Some(Event::OverLimit)
    }

    /// Drops bytes of a frame over the limit up to its end.
    fn discarding(&mut self) -> Option<Event> {
        let State::Discarding { head, total } = &mut self.state else { return None };
        let left = (self.limits.discard_bytes + 1).saturating_sub(*total);
        let window = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if let Some(at) = mark(&self.buffer[..window]) {
            let (head, total) = (head.clone(), *total + at as u64);
            let restarted = self.buffer[at] == START;
            self.buffer.advance(at + 1);
            return Some(if restarted {
                self.frames += 1;
                self.state = State::Inside { scanned: 0, slot: Slot::None };
                Event::Restarted { partial: head }
            } else {
                self.ended();
                Event::Oversize { head, total }
            });
        }
        self.buffer.advance(window);
        *total += window as u64;
        if *total <= self.limits.discard_bytes {
            return None;
        }
        let event = Event::DiscardBudgetSpent { head: head.clone(), total: *total };
        self.state = State::Closed;
        Some(event)
    }

    fn ended(&mut self) {
        self.state = State::Between(JunkRun::default());
    }
}

/// The first 0x0B or 0x1C.
fn mark(bytes: &[u8]) -> Option<usize> {
    memchr2(START, END, bytes)
}

/// Bytes that real senders put between frames and that mean nothing.
fn is_skipped(byte: u8) -> bool {
    matches!(byte, 0x00 | b'\n' | b'\r' | b' ')
}

/// Junk between two frames, and what its first bytes tell.
struct JunkRun {
    bytes: u64,
    class: JunkClass,
    prefix: [u8; JUNK_PREFIX_BYTES],
    len: usize,
    decided: bool,
}

impl Default for JunkRun {
    fn default() -> Self {
        Self { bytes: 0, class: JunkClass::Other, prefix: [0; JUNK_PREFIX_BYTES], len: 0, decided: false }
    }
}

#[derive(Clone, Copy)]
enum Told {
    Foreign(Foreign),
    Unframed,
}

/// How a run that is more than junk begins. None is longer than `JUNK_PREFIX_BYTES`.
const SIGNATURES: &[(&[u8], Told)] = &[
    (b"\x16\x03", Told::Foreign(Foreign::TlsHello)),
    (b"GET ", Told::Foreign(Foreign::HttpRequest)),
    (b"POST ", Told::Foreign(Foreign::HttpRequest)),
    (b"PUT ", Told::Foreign(Foreign::HttpRequest)),
    (b"HEAD ", Told::Foreign(Foreign::HttpRequest)),
    (b"PATCH ", Told::Foreign(Foreign::HttpRequest)),
    (b"TRACE ", Told::Foreign(Foreign::HttpRequest)),
    (b"DELETE ", Told::Foreign(Foreign::HttpRequest)),
    (b"OPTIONS ", Told::Foreign(Foreign::HttpRequest)),
    (b"CONNECT ", Told::Foreign(Foreign::HttpRequest)),
    (b"PRI * ", Told::Foreign(Foreign::HttpRequest)),
    (b"HTTP", Told::Foreign(Foreign::HttpRequest)),
    (b"MSH", Told::Unframed),
    (b"FHS", Told::Unframed),
    (b"BHS", Told::Unframed),
];

impl JunkRun {
    /// Takes one byte; says something at most once a run. `fresh`: the run is the first thing on its connection.
    fn push(&mut self, byte: u8, fresh: bool) -> Option<Told> {
        if is_skipped(byte) {
            if self.bytes == 0 {
                return None;
            }
        } else {
            self.bytes += 1;
        }
        if self.decided {
            return None;
        }
        self.prefix[self.len] = byte;
        self.len += 1;
        let seen = &self.prefix[..self.len];
        let mut candidates = SIGNATURES.iter().filter(|(_, told)| fresh || matches!(told, Told::Unframed));
        let Some((signature, told)) = candidates.find(|(signature, _)| signature.starts_with(seen)) else {
            self.decided = true;
            return None;
        };
        if signature.len() > seen.len() {
            return None;
        }
        self.decided = true;
        if let Told::Unframed = told {
            self.class = JunkClass::UnframedMessage;
        }
        Some(*told)
    }
}

const _: () = {
    let mut i = 0;
    while i < SIGNATURES.len() {
        assert!(SIGNATURES[i].0.len() <= JUNK_PREFIX_BYTES);
        i += 1;
    }
};
