//! What it costs to find messages in a stream and to read their headers, against what it costs to look at the bytes at all. Prints, asserts
//! nothing.
//!
//! | measured | against |
//! |---|---|
//! | framer, then header scan of every message, on 700-byte messages | memchr for the end mark over the same bytes, read into the same kind of buffer in the same pieces |
//! | the same | bare memchr over the bytes where they lie |
//! | the whole of what a connection computes for a message: frame, verdict, identity, positive reply | as above |
//! | allocations for each of these | - |
//!
//! What no framer with a scanner can be faster than is measured beside them: the floor searches for the end mark, then once for the separators of
//! the header, where the bytes lie, and keeps nothing; cutting hands out each message as a `Bytes`, and does nothing else.
//!
//! Both sides run on one core, take turns, and the best of the rounds are compared, because other load only ever adds time. Copying a piece of the stream stands for `read`.
//! Run: `cargo bench -p siteward-tests --profile fast --bench framer`.

use std::alloc::System;
use std::hint::black_box;
use std::time::Instant;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use harness::message;
use siteward::config::settings::AnswerSettings;
use siteward::source::ack::{self, Stamp, Verdict};
use siteward::source::frame::{END, Event, FrameLimits, Framer};
use siteward::source::msh;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MESSAGE_BYTES: usize = 700;
const ROUNDS: usize = 15;
/// Streams: one that stays in a core's cache, one that does not, one (256 MB) that no cache holds, as what comes from a socket.
const MESSAGES: [usize; 3] = [700, 60_000, 370_000];
/// What one read brings: all that fits, or one message as from a sender that waits for its answer.
const READ_BYTES: usize = 16 * 1024;

/// A thing to be done with a whole stream in pieces; returns how many messages it saw.
struct Contender {
    name: &'static str,
    run: fn(&[&[u8]]) -> usize,
}

const CONTENDERS: [Contender; 7] = [
    Contender { name: "memchr, bytes where they lie", run: bare_memchr },
    Contender { name: "memchr, bytes read into a buffer", run: read_memchr },
    Contender { name: "floor: memchr, and the header's separators", run: floor },
    Contender { name: "floor: memchr, and cutting", run: cutting },
    Contender { name: "framer", run: framer },
    Contender { name: "framer and scanner", run: framer_and_scanner },
    Contender { name: "frame to reply", run: frame_to_reply },
];

fn main() {
    // `cargo test` runs benches too, to see that they work; it does not want to wait for them
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    for messages in MESSAGES {
        let framed: Vec<Vec<u8>> = (0..messages as u64).map(|n| harness::sender::frame(&message::build(1, n, MESSAGE_BYTES))).collect();
        let stream = framed.concat();
        let full: Vec<&[u8]> = stream.chunks(READ_BYTES).collect();
        let single: Vec<&[u8]> = framed.iter().map(Vec::as_slice).collect();
        for (how, pieces) in [("pipelined, 16 KiB a read", full), ("one message a read", single)] {
            println!("\n{messages} messages of {MESSAGE_BYTES} bytes, {} KiB, {how}; best of {ROUNDS} rounds", stream.len() / 1024);
            println!("what | GB/s | ns a message | of memchr, where they lie | of memchr, read | allocations a message");
            report(&pieces, messages, stream.len());
        }
    }
}

fn report(pieces: &[&[u8]], messages: usize, bytes: usize) {
    let mut seconds: [Vec<f64>; CONTENDERS.len()] = Default::default();
    for _ in 0..ROUNDS {
        for (contender, times) in CONTENDERS.iter().zip(&mut seconds) {
            // short streams several times, so that a round is long against the clock
            let turns = (20_000_000 / bytes).max(1);
            let began = Instant::now();
            for _ in 0..turns {
                assert_eq!((contender.run)(black_box(pieces)), messages, "{}", contender.name);
            }
            times.push(began.elapsed().as_secs_f64() / turns as f64);
        }
    }
    let best = seconds.map(|times| times.into_iter().fold(f64::INFINITY, f64::min));
    for (contender, took) in CONTENDERS.iter().zip(best) {
        let region = Region::new(ALLOCATOR);
        (contender.run)(pieces);
        let change = region.change();
        let allocations = (change.allocations + change.reallocations) as f64 / messages as f64;
        println!(
            "{} | {:.2} | {:.0} | {:.2} | {:.2} | {allocations:.3}",
            contender.name,
            bytes as f64 / took / 1e9,
            took * 1e9 / messages as f64,
            best[0] / took,
            best[1] / took,
        );
    }
}

/// Counts marks in place; a frame may be cut by the end of a piece, which costs this one nothing.
fn bare_memchr(pieces: &[&[u8]]) -> usize {
    pieces.iter().map(|piece| memchr::memchr_iter(END, piece).count()).sum()
}

fn read_memchr(pieces: &[&[u8]]) -> usize {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let mut seen = 0;
    for piece in pieces {
        buffer.clear();
        buffer.put_slice(piece);
        let mut rest = &buffer[..];
        while let Some(at) = memchr::memchr(END, rest) {
            seen += 1;
            rest = &rest[at + 1..];
        }
    }
    seen
}

/// A header that is cut by the end of a piece is looked at as far as it goes, or not at all.
fn floor(pieces: &[&[u8]]) -> usize {
    let mut seen = 0;
    for piece in pieces {
        let mut rest = *piece;
        while let Some(at) = memchr::memchr(END, rest) {
            let end = memchr::memchr(b'\r', rest.get(2..at).unwrap_or_default()).map_or(at, |end| 2 + end);
            black_box(memchr::memchr_iter(b'|', &rest[..end.min(at)]).fold(0, usize::wrapping_add));
            seen += 1;
            rest = &rest[at + 1..];
        }
    }
    seen
}

fn cutting(pieces: &[&[u8]]) -> usize {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let mut seen = 0;
    for piece in pieces {
        buffer.reserve(READ_BYTES);
        buffer.put_slice(piece);
        while let Some(at) = memchr::memchr(END, &buffer) {
            black_box(buffer.split_to(at).freeze());
            buffer.advance(1);
            seen += 1;
        }
    }
    seen
}

fn frames(pieces: &[&[u8]], mut take: impl FnMut(&Bytes)) -> usize {
    let mut framer = Framer::new(FrameLimits::new(16 << 20));
    let mut seen = 0;
    for piece in pieces {
        framer.buffer().put_slice(piece);
        while let Some(event) = framer.next_event() {
            let Event::Frame(frame) = event else { panic!("only frames were sent") };
            take(frame.expose());
            seen += 1;
        }
    }
    seen
}

fn framer(pieces: &[&[u8]]) -> usize {
    frames(pieces, |frame| {
        black_box(frame);
    })
}

fn framer_and_scanner(pieces: &[&[u8]]) -> usize {
    frames(pieces, |frame| {
        black_box(msh::scan(frame));
    })
}

fn frame_to_reply(pieces: &[&[u8]]) -> usize {
    let answers = AnswerSettings::default();
    frames(pieces, |frame| {
        let Verdict::Accept(accepted) = ack::judge(frame, &answers) else { panic!("a good message") };
        let stamp = Stamp { time: ack::dtm_utc(1_763_848_800_000), control_id: "00112233445566778899".into() };
        black_box((accepted.identity(), accepted.positive(&stamp)));
    })
}
