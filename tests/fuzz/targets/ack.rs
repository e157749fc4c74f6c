//! Any frame judged and answered: every reply is one frame below 4 KiB with MSA-2 as it came and nothing else of the message.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use siteward::limits::{CONTROL_ID_ECHO_BYTES_MAX, REPLY_BYTES_MAX};
use siteward::source::ack::{self, Policy, Stamp, Verdict};
use siteward::source::frame::{END, Event, FrameLimits, Framer, START};
use siteward::source::msh::{self, Header, Kind};

/// How a frame begins, chosen by the first byte of the input together with the policy.
const BEGINNINGS: [&[u8]; 7] = [
    b"",
    b"MSH|^~\\&|",
    b"MSH",
    b"MSH|^~\\&|A|B|C|D|20260101||ADT^A01|",
    b"MSH|^~\\&|A|B|C|D|20260101||ADT^A01|1|P|2.5.1|||",
    b"FHS|^~\\&|A|B|C|D|20260101||||",
    b"BHS|^~\\&|A|B\rMSH|^~\\&|",
];

/// What MSA-2 must be: MSH-10 as received, where it can be told at all.
fn control_id<'a>(header: Option<&Header<'a>>) -> &'a [u8] {
    let id = header.map(|h| h.field(10)).unwrap_or_default();
    let told = id.len() <= CONTROL_ID_ECHO_BYTES_MAX && !id.iter().any(|b| matches!(*b, START | END | b'\r'));
    if told { id } else { b"" }
}

/// Holds for every reply.
fn check(reply: &[u8], header: Option<&Header<'_>>, positive: bool) {
    if reply.is_empty() {
        return;
    }
    assert!(reply.len() < REPLY_BYTES_MAX, "{} bytes", reply.len());
    let body = reply.strip_prefix(&[START]).and_then(|r| r.strip_suffix(&[END, b'\r'])).expect("framed");
    assert!(!body.iter().any(|b| matches!(*b, START | END)), "framed exactly once");
    let segments: Vec<&[u8]> = body.strip_suffix(b"\r").expect("a last segment that ends").split(|b| *b == b'\r').collect();
    assert_eq!(segments.len(), if positive { 2 } else { segments.len().clamp(2, 3) }, "MSH, MSA and for a refusal ERR");
    let separator = header.map_or(&b"|"[..], |h| h.delimiters.separator);
    let fields = |segment: &'_ [u8], name: &[u8; 3]| -> Vec<Vec<u8>> { split(segment.strip_prefix(name).expect("its name"), separator) };
    let msa = fields(segments[1], b"MSA");
    let id = control_id(header);
    assert_eq!(msa[2], id, "MSA-2 is MSH-10");
    let codes: &[&[u8]] = if positive { &[b"AA", b"CA"] } else { &[b"AE", b"AR", b"CE", b"CR"] };
    assert!(codes.contains(&&msa[1][..]), "MSA-1");
    // I7: what follows MSA-2, and all of ERR, is text of ours
    let ours = [
        &b""[..],
        b"Segment sequence error",
        b"Required field missing",
        b"Data type error",
        b"Value too long",
        b"Application internal error",
    ];
    assert!(msa.len() <= if positive { 3 } else { 4 } && msa[3..].iter().all(|f| ours.contains(&&f[..])), "MSA-3");
    if let Some(err) = segments.get(2) {
        assert!(err.starts_with(b"ERR") && err.len() <= 3 + 90 + 16 * 4, "ERR is of a length of ours");
    }
    check_msh(segments[0], header, separator);
}

/// I7: MSH of a reply repeats addresses, processing id, version, trigger and character set, each in its place, and nothing else.
fn check_msh(segment: &[u8], header: Option<&Header<'_>>, separator: &[u8]) {
    let fields = split(segment.strip_prefix(b"MSH").expect("its name"), separator);
    let encoding_holds_none = header.is_none_or(|h| !h.delimiters.encoding.windows(separator.len()).any(|w| w == separator));
    assert!(encoding_holds_none && fields.len() <= 18);
    let Some(header) = header else { return };
    // fields[1] is MSH-2
    for (place, theirs) in [(3, 5), (4, 6), (5, 3), (6, 4), (11, 11), (12, 12), (18, 18)] {
        let Some(field) = fields.get(place - 1) else { continue };
        let source = header.field(theirs);
        let default = place == 12 && field == b"2.5";
        assert!(field.is_empty() || default || field == source, "MSH-{place} is MSH-{theirs} or nothing");
    }
    for empty in [8, 13, 14, 15, 16, 17] {
        assert!(fields.get(empty - 1).is_none_or(Vec::is_empty), "MSH-{empty} stays empty");
    }
    assert!(fields[8].starts_with(b"ACK"));
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

/// A receiver of ours takes the reply as one frame and sees an acknowledgement.
fn reads_as_one_frame(reply: &[u8]) {
    let mut framer = Framer::new(FrameLimits::new(1 << 16));
    framer.buffer().extend_from_slice(reply);
    let Some(Event::Frame(body)) = framer.next_event() else { panic!("a reply is a frame") };
    assert!(framer.next_event().is_none());
    let header = msh::scan(body.expose()).expect("a reply has a header");
    assert!(header.kind == Kind::Message && header.component(9, 1).starts_with(b"ACK"));
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else { return };
    let frame = Bytes::from([BEGINNINGS[usize::from(choice >> 1) % BEGINNINGS.len()], rest].concat());
    let message = &frame[..];
    let stamp = Stamp { time: "20260101120000+0000".into(), control_id: "0123456789ABCDEF0123".into() };
    let policy = Policy { allow_missing_control_id: choice & 1 == 1 };
    let header = msh::scan(&frame);
    let mut replies = Vec::new();
    match ack::judge(&frame, policy) {
        Verdict::Accept(accepted) => {
            let positive = accepted.positive(&stamp);
            check(positive.expose(), header.as_ref(), true);
            replies.push(positive.expose().clone());
            for refusal in [accepted.store_failed(&stamp), accepted.too_large(&stamp)].into_iter().flatten() {
                check(refusal.bytes(), header.as_ref(), false);
                replies.push(refusal.bytes().clone());
            }
            let id = header.as_ref().map(|h| h.field(10)).unwrap_or_default();
            assert_eq!(accepted.identity().map(|i| i.control_id).unwrap_or_default(), id);
            assert_eq!(control_id(header.as_ref()), id, "what cannot be repeated is not accepted");
        }
        Verdict::Refuse(refused) => {
            if let Some(reply) = refused.reply(&stamp) {
                check(reply.bytes(), header.as_ref(), false);
                replies.push(reply.bytes().clone());
            }
        }
        Verdict::Ignore(_) => {}
    }
    let head = msh::scan_head(message);
    if let Some(reply) = ack::judge_oversize(message).reply(&stamp) {
        check(reply.bytes(), head.as_ref(), false);
        replies.push(reply.bytes().clone());
    }
    for reply in replies.iter().filter(|r| !r.is_empty()) {
        reads_as_one_frame(reply);
    }
});
