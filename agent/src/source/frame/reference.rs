//! What a byte stream says, told of the whole stream at once: the yardstick that the incremental framer is held against.
//!
//! No state, no buffer, no cuts: the stream is a slice, marks are looked up in it, and each rule of `frame.rs` is written down a second time in
//! the plainest way. Compiled for tests, and by the fuzz targets from this very file; both see the same names through `super`.
//!
//! Every event is decided by one byte, so what a stream said so far is what its beginning says: `events_of(&stream[..n])` for any `n`.

use super::{END, Event, Foreign, FrameLimits, JunkClass, Payload, Remainder, START};

/// Everything the framer must say of `stream` when every slot is granted, and what must be left when the stream ends.
pub fn events_of(stream: &[u8], limits: FrameLimits) -> (Vec<Event>, Remainder) {
    let mut events = Vec::new();
    let mut at = 0;
    let mut framed_before = false;
    loop {
        // between frames: everything up to the next start
        let length = stream[at..].iter().position(|b| *b == START);
        let gap = &stream[at..length.map_or(stream.len(), |length| at + length)];
        let (bytes, class, closed) = junk(gap, framed_before, limits, &mut events);
        if closed {
            return (events, Remainder::Nothing);
        }
        let Some(length) = length else {
            return (events, if bytes > 0 { Remainder::Junk { bytes, class } } else { Remainder::Nothing });
        };
        if bytes > 0 {
            events.push(Event::Junk { bytes, class });
        }
        framed_before = true;
        at += length + 1;
        // frames, one behind the other while they are begun again, up to the one that ends
        loop {
            let length = stream[at..].iter().position(|b| matches!(*b, START | END));
            let body = &stream[at..length.map_or(stream.len(), |length| at + length)];
            let over = body.len() > limits.message_bytes;
            if body.len() > limits.own_bytes && limits.own_bytes < limits.message_bytes {
                events.push(Event::NeedsSlot);
            }
            if over {
                events.push(Event::OverLimit);
            }
            let kept = payload(if over { &body[..limits.head_bytes] } else { body });
            if body.len() as u64 > limits.discard_bytes {
                events.push(Event::DiscardBudgetSpent { head: kept, total: limits.discard_bytes + 1 });
                return (events, Remainder::Nothing);
            }
            let Some(length) = length else {
                return (events, if body.is_empty() { Remainder::Nothing } else { Remainder::Partial(kept) });
            };
            at += length + 1;
            if stream[at - 1] == START {
                events.push(Event::Restarted { partial: kept });
                continue;
            }
            events.push(if over { Event::Oversize { head: kept, total: body.len() as u64 } } else { Event::Frame(kept) });
            break;
        }
    }
}

/// What stands between two frames: how much of it means something, of which kind, and whether the connection ends there.
fn junk(gap: &[u8], framed_before: bool, limits: FrameLimits, events: &mut Vec<Event>) -> (u64, JunkClass, bool) {
    let blank = |b: &u8| matches!(*b, 0x00 | b'\n' | b'\r' | b' ');
    let text = &gap[gap.iter().take_while(|b| blank(b)).count()..];
    let meant = |text: &[u8]| text.iter().filter(|b| !blank(b)).count() as u64;
    let begins = |with: &[u8]| text.starts_with(with);
    let verbs = ["GET ", "POST ", "PUT ", "HEAD ", "PATCH ", "TRACE ", "DELETE ", "OPTIONS ", "CONNECT ", "PRI * ", "HTTP"];
    let foreign = if framed_before {
        None
    } else if begins(b"\x16\x03") {
        Some((2, Foreign::TlsHello))
    } else {
        verbs.iter().find(|verb| begins(verb.as_bytes())).map(|verb| (verb.len(), Foreign::HttpRequest))
    };
    let unframed = [&b"MSH"[..], b"FHS", b"BHS"].iter().any(|name| begins(name));
    // the byte that is one too many, if there is one
    let spent = (0..text.len()).find(|at| meant(&text[..=*at]) > limits.junk_bytes);
    if let Some((length, foreign)) = foreign
        && spent.is_none_or(|at| length <= at + 1)
    {
        events.push(Event::Foreign(foreign));
        return (0, JunkClass::Other, true);
    }
    let told_in_time = unframed && spent.is_none_or(|at| at >= 3);
    let class = if unframed && spent.is_none_or(|at| at >= 2) { JunkClass::UnframedMessage } else { JunkClass::Other };
    if told_in_time {
        events.push(Event::Unframed);
    }
    if spent.is_some() {
        events.push(Event::JunkBudgetSpent { bytes: limits.junk_bytes + 1, class });
    }
    (meant(text), class, spent.is_some())
}

fn payload(bytes: &[u8]) -> Payload {
    Payload::new(bytes::Bytes::copy_from_slice(bytes))
}
