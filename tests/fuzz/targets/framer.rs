//! Any bytes, cut in any way: the framer says what the reference model says of the whole stream, and holds no more than its limits allow.
//!
//! The first bytes of the input choose the limits and seed the cuts; the rest is the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siteward::limits::SOCKET_READ_BYTES;
use siteward::record::Payload;
use siteward::source::frame::{END, Event, Foreign, FrameLimits, Framer, JunkClass, Remainder, START};

/// The agent's own file, compiled here a second time; it takes its names from here.
#[path = "../../../agent/src/source/frame/reference.rs"]
mod reference;

fn limits(choice: &[u8; 6]) -> FrameLimits {
    let [scale, message, own, head, more, junk] = choice.map(usize::from);
    let message_bytes = 1 + (message << (scale % 5));
    FrameLimits {
        message_bytes,
        own_bytes: own.min(message_bytes),
        head_bytes: head.min(message_bytes),
        discard_bytes: (message_bytes + 1 + more) as u64,
        junk_bytes: junk as u64,
        unframed: false,
    }
}

fn incremental(mut stream: &[u8], limits: FrameLimits, mut seed: u64) -> (Vec<Event>, Remainder) {
    let mut framer = Framer::new(limits);
    let mut events = Vec::new();
    while !stream.is_empty() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // mostly short pieces, now and then a long one
        let length = match (seed >> 60, (seed >> 33) as usize) {
            (0..4, _) => 1,
            (4..10, n) => 1 + n % 16,
            (10..14, n) => 1 + n % 300,
            (_, n) => 1 + n % SOCKET_READ_BYTES,
        };
        let (piece, rest) = stream.split_at(length.min(stream.len()));
        stream = rest;
        framer.buffer().extend_from_slice(piece);
        while let Some(event) = framer.next_event() {
            if event == Event::NeedsSlot {
                assert_ne!(events.last(), Some(&Event::NeedsSlot), "a slot is asked for once");
                framer.grant();
                assert!(framer.is_large());
            }
            events.push(event);
        }
        let held = if framer.is_large() { limits.message_bytes } else { limits.own_bytes };
        assert!(framer.buffer().len() <= held, "I4: no more than the limits say");
    }
    let remainder = framer.finish();
    (events, remainder)
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first_chunk::<6>() else { return };
    let Some((seed, stream)) = rest.split_first_chunk::<2>() else { return };
    let limits = limits(choice);
    let seed = u64::from(u16::from_be_bytes(*seed));
    assert_eq!(incremental(stream, limits, seed), reference::events_of(stream, limits));
});
