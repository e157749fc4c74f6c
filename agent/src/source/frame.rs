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
//! 5. Where the listener takes unframed messages, a run that begins with MSH is a message too; where it ends is in `unframed`. Time is the
//!    connection's: it calls [`Framer::silence`].
//!
//! Memory (I4): a frame up to `own_bytes` lives in the connection's own allowance. Above that the framer stops with [`Event::NeedsSlot`]
//! until [`Framer::grant`] is called; then room for a whole message is reserved at once, so that growing never copies and never overshoots.
//! When the frame ends the little that was read behind it moves to a small buffer of its own, so the large block is freed with the frame.

mod junk;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
mod unframed;
#[cfg(test)]
mod unframed_tests;

use bytes::{Buf as _, BytesMut};
use memchr::memchr2;
use std::fmt;

use self::junk::{JunkRun, Told};
use self::unframed::Mark;
use crate::limits::{FRAME_OWN_BYTES, JUNK_BYTES_MAX, OVERSIZE_DISCARD_BYTES, OVERSIZE_HEAD_BYTES, SOCKET_READ_BYTES};
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
    /// Take messages without framing.
    pub unframed: bool,
}

impl FrameLimits {
    pub fn new(message_bytes: usize) -> Self {
        Self {
            message_bytes,
            own_bytes: FRAME_OWN_BYTES.min(message_bytes),
            head_bytes: OVERSIZE_HEAD_BYTES.min(message_bytes),
            discard_bytes: OVERSIZE_DISCARD_BYTES,
            junk_bytes: JUNK_BYTES_MAX,
            unframed: false,
        }
    }
}

/// What the bytes say. After `Foreign`, `JunkBudgetSpent`, `DiscardBudgetSpent` and `UnframedRest` nothing more comes.
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
    /// What should have been part of the unframed message before, which a silence had ended.
    UnframedRest {
        rest: Payload,
    },
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

/// How the frame being received began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Framed,
    Unframed,
}

enum State {
    Between(JunkRun),
    /// The buffer's front is the frame; its first `scanned` bytes hold no mark.
    Inside {
        scanned: usize,
        slot: Slot,
        kind: Kind,
    },
    Discarding {
        head: Payload,
        total: u64,
        kind: Kind,
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
    /// The connection was silent behind an unframed message that may end there.
    silent: bool,
    /// The message before ended by a silence only.
    guessed: bool,
}

impl fmt::Debug for Framer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Framer").field("buffered", &self.buffer.len()).field("frames", &self.frames).finish_non_exhaustive()
    }
}

impl Framer {
    pub fn new(limits: FrameLimits) -> Self {
        Self {
            limits,
            buffer: BytesMut::new(),
            state: State::Between(JunkRun::default()),
            frames: 0,
            fresh: true,
            silent: false,
            guessed: false,
        }
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

    /// Whether silence would end the message being received.
    pub fn may_end_by_silence(&self) -> bool {
        match &self.state {
            State::Inside { kind: Kind::Unframed, slot, .. } => *slot != Slot::Wanted && unframed::ends_segment(&self.buffer),
            State::Discarding { kind: Kind::Unframed, .. } => true,
            _ => false,
        }
    }

    /// Nothing came for a while, or nothing will come any more: what may end by that has ended. True when there is an event now.
    pub fn silence(&mut self) -> bool {
        self.silent = self.may_end_by_silence();
        self.silent
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
                _ if self.silent => return self.ended_by_silence(),
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
        if run.bytes == 0 && self.buffer.first() == Some(&START) {
            self.buffer.advance(1);
            self.begin(Kind::Framed);
            return None;
        }
        let mut used = 0;
        let mut event = None;
        for &byte in &self.buffer {
            used += 1;
            if byte == START {
                if run.bytes > 0 {
                    event = Some(Event::Junk { bytes: run.bytes, class: run.class });
                }
                self.begin(Kind::Framed);
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
                if !self.limits.unframed || run.prefix() != unframed::BEGIN {
                    event = Some(Event::Unframed);
                    self.guessed = false;
                    break;
                }
                // Its first bytes may have come with earlier reads.
                self.buffer = [unframed::BEGIN, &self.buffer[used..]].concat().as_slice().into();
                self.begin(Kind::Unframed);
                return None;
            }
            if self.guessed && run.decided {
                let rest = [run.prefix(), &self.buffer[used..]].concat();
                self.buffer.clear();
                self.state = State::Closed;
                return Some(Event::UnframedRest { rest: Payload::new(rest.into()) });
            }
        }
        self.buffer.advance(used);
        event
    }

    fn begin(&mut self, kind: Kind) {
        self.state = State::Inside { scanned: 0, slot: Slot::None, kind };
        self.frames += 1;
        (self.fresh, self.guessed) = (false, false);
    }

    /// Looks for the end of the frame at the buffer's front.
    fn inside(&mut self) -> Option<Event> {
        let State::Inside { scanned, slot, kind: Kind::Framed } = &mut self.state else { return self.inside_unframed() };
        let allowed = if *slot == Slot::Granted { self.limits.message_bytes } else { self.limits.own_bytes };
        let window = self.buffer.len().min(allowed + 1);
        if let Some(offset) = mark(&self.buffer[*scanned..window]) {
            let at = *scanned + offset;
            let restarted = self.buffer[at] == START;
            // nearly every sender's 0x0D comes with the mark: no turn of its own
            let skipped = usize::from(!restarted && self.buffer.get(at + 1) == Some(&b'\r'));
            let frame = self.split(at, 1 + skipped);
            return Some(if restarted {
                self.begin(Kind::Framed);
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
        Some(self.outgrown(allowed, window, Kind::Framed))
    }

    /// The same for a message without framing.
    fn inside_unframed(&mut self) -> Option<Event> {
        let State::Inside { scanned, slot, .. } = &mut self.state else { return None };
        let allowed = if *slot == Slot::Granted { self.limits.message_bytes } else { self.limits.own_bytes };
        // A message of exactly the limit is seen to end by the beginning of the next one.
        let most = allowed + unframed::BEGIN.len();
        let window = self.buffer.len().min(most);
        let from = scanned.saturating_sub(unframed::BEGIN.len());
        *scanned = window;
        let (at, mark) = match unframed::mark(&self.buffer[..window], from.max(1)) {
            Some((at, _)) if at > allowed => return Some(self.outgrown(allowed, at, Kind::Unframed)),
            Some(found) => found,
            None if window < most => return None,
            None => return Some(self.outgrown(allowed, window, Kind::Unframed)),
        };
        let whole = mark == Mark::End || unframed::ends_segment(&self.buffer[..at]);
        let frame = self.split(at, usize::from(mark != Mark::Next));
        self.ended();
        if mark == Mark::Start {
            self.begin(Kind::Framed);
        }
        Some(if whole { Event::Frame(frame) } else { Event::Restarted { partial: frame } })
    }

    fn ended_by_silence(&mut self) -> Option<Event> {
        self.silent = false;
        let event = match &self.state {
            State::Inside { .. } if self.buffer.len() <= self.limits.message_bytes => {
                let all = self.buffer.len();
                Event::Frame(self.split(all, 0))
            }
            State::Inside { .. } => {
                let total = self.buffer.len() as u64;
                let head = bytes::Bytes::copy_from_slice(&self.buffer[..self.limits.head_bytes]);
                self.buffer = BytesMut::new();
                Event::Oversize { head: Payload::new(head), total }
            }
            State::Discarding { head, total, .. } => Event::Oversize { head: head.clone(), total: *total },
            State::Between(_) | State::Closed => return None,
        };
        self.ended();
        self.guessed = true;
        Some(event)
    }

    /// Takes the frame at the buffer's front and skips its mark. A large block goes with the frame.
    fn split(&mut self, at: usize, mark: usize) -> Payload {
        let large = self.is_large();
        let frame = Payload::new(self.buffer.split_to(at).freeze());
        self.buffer.advance(mark);
        if large {
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        frame
    }

    /// A frame of which `window` bytes are here and more than `allowed` will come.
    fn outgrown(&mut self, allowed: usize, window: usize, kind: Kind) -> Event {
        if allowed < self.limits.message_bytes {
            if let State::Inside { slot, .. } = &mut self.state {
                *slot = Slot::Wanted;
            }
            return Event::NeedsSlot;
        }
        let head = bytes::Bytes::copy_from_slice(&self.buffer[..self.limits.head_bytes]);
        self.buffer = BytesMut::from(&self.buffer[window..]);
        self.state = State::Discarding { head: Payload::new(head), total: window as u64, kind };
        Event::OverLimit
    }

    /// Drops bytes of a frame over the limit up to its end.
    fn discarding(&mut self) -> Option<Event> {
        let State::Discarding { head, total, .. } = &mut self.state else { return None };
        let left = (self.limits.discard_bytes + 1).saturating_sub(*total);
        let window = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if let Some(at) = mark(&self.buffer[..window]) {
            let (head, total) = (head.clone(), *total + at as u64);
            let restarted = self.buffer[at] == START;
            self.buffer.advance(at + 1);
            return Some(if restarted {
                self.begin(Kind::Framed);
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
