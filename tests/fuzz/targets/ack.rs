//! Any frame judged and answered: every reply is below 4 KiB, framed, with MSA-2 as it came and nothing else of the message.
//!
//! The first byte of the input chooses the feed's settings and how the frame begins; the rest is the frame.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use siteward::config::settings::{AnswerSettings, AppAck, BatchAck};
use siteward::limits::{CONTROL_ID_ECHO_BYTES_MAX, REPLY_BYTES_MAX};
use siteward::source::ack::{self, Stamp, Verdict};
use siteward::source::batch;
use siteward::source::frame::{END, Event, FrameLimits, Framer, START};
use siteward::source::msh::{self, Header, Kind};

/// How a frame begins.
const BEGINNINGS: [&[u8]; 8] = [
    b"",
    b"MSH|^~\\&|",
    b"MSH",
    b"MSH|^~\\&|A|B|C|D|20260101||ADT^A01|",
    b"MSH|^~\\&|A|B|C|D|20260101||ADT^A01|1|P|2.5.1|||",
    b"FHS|^~\\&|A|B|C|D|20260101||||",
    b"BHS|^~\\&|A|B\rMSH|^~\\&|",
    b"MSH|^~\\&|A|B|C|D|20260101||ADT^A01|1|P|2.5.1\rMSH|^~\\&|",
];
/// Ends some of the frames, in a place where it must stay.
const CANARY: &[u8] = b"\rPID|1||CANARY-4711";

fn settings(choice: u8) -> AnswerSettings {
    AnswerSettings {
        allow_missing_control_id: choice & 0x08 != 0,
        app_ack: [AppAck::None, AppAck::SameChannel, AppAck::AaOnly, AppAck::None][usize::from(choice >> 4) % 4],
        batch_ack: if choice & 0x40 == 0 { BatchAck::Batch } else { BatchAck::Each },
        ..AnswerSettings::default()
    }
}

/// What MSA-2 must be: MSH-10 as received, where it can be told at all.
fn control_id<'a>(header: Option<&Header<'a>>) -> &'a [u8] {
    let id = header.map(|h| h.field(10)).unwrap_or_default();
    let told = id.len() <= CONTROL_ID_ECHO_BYTES_MAX && !id.iter().any(|b| matches!(*b, START | END | b'\r'));
    if told { id } else { b"" }
}

fn separator_of<'a>(header: Option<&Header<'a>>) -> &'a [u8] {
    header.map_or(b"|", |h| h.delimiters.separator)
}

fn split(bytes: &[u8], separator: &[u8]) -> Vec<Vec<u8>> {
    let mut fields = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(separator.len()).position(|w| w == separator) {
        fields.push(rest[..at].to_vec());
        rest = &rest[at + separator.len()..];
    }
    fields.push(rest.to_vec());
    fields
}

/// The frames of a reply, read by our own framer; nothing may stand around them.
fn frames(reply: &[u8]) -> Vec<Vec<u8>> {
    assert!(reply.len() < REPLY_BYTES_MAX, "{} bytes", reply.len());
    let mut framer = Framer::new(FrameLimits::new(1 << 16));
    framer.buffer().extend_from_slice(reply);
    let mut frames = Vec::new();
    while let Some(event) = framer.next_event() {
        let Event::Frame(frame) = event else { panic!("a reply is frames and nothing else") };
        frames.push(frame.expose().to_vec());
    }
    let bytes: usize = frames.iter().map(|f| f.len() + 3).sum();
    assert!(bytes == reply.len() && reply.ends_with(&[END, b'\r']), "each in 0x0B … 0x1C 0x0D");
    frames
}

/// One acknowledgement: MSH, MSA and for a refusal ERR, answering to `header`.
fn answers_to(segments: &[&[u8]], header: Option<&Header<'_>>) -> bool {
    let separator = separator_of(header);
    let Some(msa) = segments.get(1).and_then(|s| s.strip_prefix(b"MSA")).and_then(|s| s.strip_prefix(separator)) else { return false };
    let Some(rest) = msa.get(2..).and_then(|s| s.strip_prefix(separator)).and_then(|s| s.strip_prefix(control_id(header))) else { return false };
    let text = rest.strip_prefix(separator).unwrap_or(rest);
    let code = &msa[..2];
    let positive = matches!(code, b"AA" | b"CA");
    (positive || matches!(code, b"AE" | b"AR" | b"CE" | b"CR"))
        && (rest.is_empty() || !positive && rest.starts_with(separator))
        // I7: text of ours
        && text.len() <= 60 && text.iter().all(|b| b.is_ascii_alphanumeric() || *b == b' ')
        && segments.len() <= if positive { 2 } else { 3 }
        && segments.get(2).is_none_or(|err| err.starts_with(b"ERR") && err.len() < 3 + 120 + 16 * 4)
        && has_own_header(segments[0], header, separator)
}

/// I7: MSH of a reply repeats addresses, processing id, version, trigger and character set, each in its place, and nothing else.
fn has_own_header(segment: &[u8], header: Option<&Header<'_>>, separator: &[u8]) -> bool {
    let Some(rest) = segment.strip_prefix(b"MSH") else { return false };
    let fields = split(rest, separator);
    let field = |n: usize| fields.get(n - 1).map(Vec::as_slice).unwrap_or_default();
    let Some(header) = header else { return field(3) == b"siteward" };
    let repeated = [(3, 5), (4, 6), (5, 3), (6, 4), (11, 11), (12, 12), (18, 18)].into_iter().all(|(place, theirs)| {
        let default = place == 12 && field(12) == b"2.5";
        field(place).is_empty() || default || field(place) == header.field(theirs)
    });
    fields.len() <= 18 && repeated && [8, 13, 14, 15, 16, 17].iter().all(|n| field(*n).is_empty()) && field(9).starts_with(b"ACK")
}

/// The acknowledgements in a reply, each as its segments; `enveloped`: BHS before and BTS behind.
fn acknowledgements(frame: &[u8], enveloped: bool) -> Vec<Vec<&[u8]>> {
    let mut segments: Vec<&[u8]> = frame.strip_suffix(b"\r").expect("a last segment that ends").split(|b| *b == b'\r').collect();
    if enveloped {
        assert!(segments.remove(0).starts_with(b"BHS") && segments.pop().expect("a last one").starts_with(b"BTS"));
    }
    let mut all: Vec<Vec<&[u8]>> = Vec::new();
    for segment in segments {
        if segment.starts_with(b"MSH") {
            all.push(Vec::new());
        }
        all.last_mut().expect("MSH first").push(segment);
    }
    all
}

fn check(reply: &[u8], frame: &[u8], header: Option<&Header<'_>>, several: bool, answers: &AnswerSettings) {
    if reply.is_empty() {
        return;
    }
    assert!(!reply.windows(11).any(|w| w == b"CANARY-4711"), "I7: what follows the header stays inside");
    let frames = frames(reply);
    if !several {
        let most = if answers.app_ack == AppAck::SameChannel { 2 } else { 1 };
        assert!(frames.len() <= most, "one acknowledgement, or two where the feed says so");
        for frame in &frames {
            let all = acknowledgements(frame, false);
            assert!(all.len() == 1 && answers_to(&all[0], header), "MSA-2 is MSH-10 and nothing else is repeated");
            let read = msh::scan(frame).expect("a reply has a header");
            assert!(read.kind == Kind::Message && read.component(9, 1).starts_with(b"ACK"));
        }
        return;
    }
    // of several: each answers to one of the messages, in their order, or one for all of them to the batch
    let parts: Vec<batch::Piece<'_>> = batch::pieces(frame).filter(|p| p.kind == batch::Kind::Message).collect();
    let headers: Vec<Option<Header<'_>>> = parts.iter().map(|p| msh::scan(p.bytes)).collect();
    let enveloped = frames[0].starts_with(b"BHS");
    assert!(!enveloped || frames.len() == 1);
    let told: Vec<Vec<&[u8]>> = frames.iter().flat_map(|f| acknowledgements(f, enveloped)).collect();
    let mut open = headers.iter();
    let in_order = told.iter().all(|segments| open.any(|h| answers_to(segments, h.as_ref())));
    assert!(in_order || told.len() == 1 && answers_to(&told[0], header), "each acknowledgement belongs to a message");
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, rest)) = input.split_first() else { return };
    let canary = if choice & 0x80 == 0 { &b""[..] } else { CANARY };
    let frame = Bytes::from([BEGINNINGS[usize::from(choice & 7)], rest, canary].concat());
    let stamp = Stamp { time: "20260101120000+0000".into(), control_id: "0123456789ABCDEF01".into() };
    let answers = settings(choice);
    let header = msh::scan(&frame);
    match ack::judge(&frame, &answers) {
        Verdict::Accept(accepted) => {
            let several = accepted.is_several();
            let refusals = [accepted.store_failed(&stamp), accepted.too_large(&stamp)].into_iter().flatten().map(|r| r.bytes().clone());
            for reply in refusals.chain([accepted.positive(&stamp).expose().clone()]) {
                check(&reply, &frame, header.as_ref(), several, &answers);
            }
            let id = header.as_ref().map(|h| h.field(10)).unwrap_or_default();
            assert_eq!(accepted.identity().map(|i| i.control_id).unwrap_or_default(), id);
            assert!(several || control_id(header.as_ref()) == id, "what cannot be repeated is not accepted");
        }
        Verdict::Refuse(refused) => {
            if let Some(reply) = refused.reply(&stamp) {
                let several = header.is_some() && batch::is_several(&frame);
                check(reply.bytes(), &frame, header.as_ref(), several, &answers);
            }
        }
        Verdict::Ignore(_) => {}
    }
    if let Some(reply) = ack::judge_oversize(&frame, &answers).reply(&stamp) {
        check(reply.bytes(), &frame, msh::scan_head(&frame).as_ref(), false, &answers);
    }
});
