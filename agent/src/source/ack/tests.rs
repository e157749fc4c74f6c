//! The answer table row by row, and replies byte for byte.

use super::*;
use crate::config::settings::{AppAck, BatchAck, StrictSettings};
use crate::limits::REPLY_BYTES_MAX;
use proptest::prelude::*;

pub(super) static PLAIN: AnswerSettings = AnswerSettings {
    allow_missing_control_id: false,
    app_ack: AppAck::None,
    batch_ack: BatchAck::Batch,
    strict: StrictSettings { types: Vec::new(), versions: Vec::new(), processing_ids: Vec::new() },
};
static LENIENT: AnswerSettings = AnswerSettings {
    allow_missing_control_id: true,
    app_ack: AppAck::None,
    batch_ack: BatchAck::Batch,
    strict: StrictSettings { types: Vec::new(), versions: Vec::new(), processing_ids: Vec::new() },
};

pub(super) fn stamp() -> Stamp {
    Stamp { time: "20260101120000+0000".into(), control_id: "00ab".into() }
}

/// A message that lives as long as the test, so that verdicts can be passed around.
pub(super) fn kept(message: &[u8]) -> &'static Bytes {
    Box::leak(Box::new(Bytes::copy_from_slice(message)))
}

fn accepted(message: &[u8]) -> Accepted<'static> {
    match judge(kept(message), &PLAIN) {
        Verdict::Accept(accepted) => accepted,
        other => panic!("{other:?}"),
    }
}

fn refused(message: &[u8]) -> Refused<'static> {
    match judge(kept(message), &PLAIN) {
        Verdict::Refuse(refused) => refused,
        other => panic!("{other:?}"),
    }
}

fn positive(message: &[u8]) -> Vec<u8> {
    accepted(message).positive(&stamp()).expose().to_vec()
}

fn negative(message: &[u8]) -> Vec<u8> {
    refused(message).reply(&stamp()).unwrap().bytes().to_vec()
}

/// The reply without framing, with `\r` shown as a line end.
pub(super) fn shown(reply: &[u8]) -> String {
    let inner = reply.strip_prefix(b"\x0B").and_then(|r| r.strip_suffix(b"\x1C\r")).expect("framed");
    String::from_utf8(inner.to_vec()).unwrap().replace('\r', "\n")
}

#[test]
fn a_positive_reply_is_built_anew_with_the_senders_fields_exchanged() {
    let message = b"MSH|^~\\&|EHRApp^1.Edu^ISO|Main|siteward|GW^2^DNS|20240101||ADT^A01^ADT_A01|MSG 1|P^T|2.5.1^USA|7|c|\rPID|1||CANARY\r";
    let expected = "MSH|^~\\&|siteward|GW^2^DNS|EHRApp^1.Edu^ISO|Main|20260101120000+0000||ACK^A01^ACK|00ab|P^T|2.5.1^USA\nMSA|AA|MSG 1\n";
    assert_eq!(shown(&positive(message)), expected);
}

#[test]
fn the_message_type_of_the_reply_follows_the_version() {
    let cases = [
        ("2.2", "ADT^A01", "ACK"),
        ("2.3", "ADT^A01", "ACK"),
        ("2.3.1", "ADT^A01", "ACK^A01"),
        ("2.4", "ADT^A01", "ACK^A01"),
        ("2.5", "ADT^A01", "ACK^A01^ACK"),
        ("2.9.1", "ADT^A01", "ACK^A01^ACK"),
        ("2.5", "ZPM", "ACK"),
        ("2.5", "", "ACK"),
        ("", "ADT^A01", "ACK^A01^ACK"),
        ("V2", "ADT^A01", "ACK^A01^ACK"),
    ];
    for (version, message_type, expected) in cases {
        let reply = shown(&positive(format!("MSH|^~\\&|A|B|C|D|||{message_type}|1|P|{version}\r").as_bytes()));
        let fields: Vec<&str> = reply.lines().next().unwrap().split('|').collect();
        assert_eq!(fields[8], expected, "{version} {message_type}");
        assert_eq!(fields[11], if version.starts_with("2.") { version } else { "2.5" });
    }
}

#[test]
fn the_control_id_is_repeated_byte_for_byte() {
    for id in [&b" 1 "[..], b"a^b~c\\T\\d&e", b"\xE4\xF6\xFF", b"\"\"", "ü€".as_bytes(), b"\x01\x02\x7F", b"a\nb", &[b'9'; 2560]] {
        let message = [b"MSH|^~\\&|A|B|C|D|||ADT|", id, b"|P|2.5\rPID|1\r"].concat();
        let reply = positive(&message);
        assert!(reply.ends_with(&[b"\rMSA|AA|", id, b"\r\x1C\r"].concat()));
        assert!(reply.len() < REPLY_BYTES_MAX);
        let identity = accepted(&message).identity().unwrap();
        assert_eq!((&identity.application[..], &identity.facility[..], &identity.control_id[..]), (&b"A"[..], &b"B"[..], id));
    }
}

#[test]
fn the_reply_speaks_with_the_senders_delimiters() {
    let reply = positive(b"MSH$%~\\!$A$B$C%x$D$$$ORU%R01$77$P$2.5\rPID$1\r");
    assert_eq!(shown(&reply), "MSH$%~\\!$C%x$D$A$B$20260101120000+0000$$ACK%R01%ACK$00ab$P$2.5\nMSA$AA$77\n");
    let short = positive(b"MSH|^|A|B|C|D|||ORU^R01|77|P|2.5\rPID|1\r");
    assert_eq!(shown(&short), "MSH|^|C|D|A|B|20260101120000+0000||ACK^R01^ACK|00ab|P|2.5\nMSA|AA|77\n");
    let none = positive(b"MSH||A|B|C|D|||ORU^R01|77|P|2.4\rPID|1\r");
    assert!(shown(&none).starts_with("MSH|^~\\&|C|D|A|B|"));
    let text = shown(&negative(b"MSH.^~\\& .A.B.C.D...ORU^R01..P\r"));
    assert_eq!(
        text,
        "MSH.^~\\& .C.D.A.B.20260101120000+0000..ACK^R01^ACK.00ab.P.\nMSA.AE..\nERR..MSH^1^10.101^^HL70357.E...no_control_id.\n"
    );
}

#[test]
fn a_refusal_names_the_place_and_the_code_as_the_version_wants_it() {
    let reply = |version: &str| shown(&negative(format!("MSH|^~\\&|A|B|C|D|||ADT^A01||P|{version}\rPID|1||CANARY\r").as_bytes()));
    assert!(reply("2.3").ends_with("MSA|AE||Required field missing\nERR|MSH^1^10^101&Required field missing&HL70357\n"));
    assert!(reply("2.5").ends_with(
        "MSA|AE||Required field missing\nERR||MSH^1^10|101^Required field missing^HL70357|E|||no_control_id|Fill MSH-10 and send again\n"
    ));
    assert!(
        reply("2.7").ends_with("MSA|AE|\nERR||MSH^1^10|101^Required field missing^HL70357|E|||no_control_id|Fill MSH-10 and send again\n"),
        "MSA-3 is withdrawn"
    );
    assert!(!reply("2.5").contains("CANARY"));
}

#[test]
fn a_failed_store_is_told_as_207() {
    let message = b"MSH|^~\\&|A|B|C|D|||ADT^A01|5|P|2.3\rPID|1||CANARY\r";
    let reply = accepted(message).store_failed(&stamp()).unwrap();
    assert!(shown(reply.bytes()).ends_with("MSA|AR|5|Application internal error\nERR|^^^207&Application internal error&HL70357\n"));
    let message = b"MSH|^~\\&|A|B|C|D|||ADT^A01|5|P|2.8|||AL|NE\rPID|1\r";
    let reply = accepted(message).store_failed(&stamp()).unwrap();
    assert!(shown(reply.bytes()).ends_with(
        "MSA|CE|5\nERR|||207^Application internal error^HL70357|E|||store_failed|The message was not stored, send it again later\n"
    ));
}

#[test]
fn bytes_without_a_header_are_rejected_with_an_empty_control_id() {
    for junk in [&b""[..], b"PID|1||CANARY\r", b"MSH", b"MSH|^~\\&", b"<xml/>abcdefgh", b"\xFF\xFE\x00M"] {
        let refused = refused(junk);
        assert_eq!(refused.fault(), Fault::NoHeader);
        let expected = "MSH|^~\\&|siteward||||20260101120000+0000||ACK|00ab|P|2.5\nMSA|AR||Segment sequence error\n\
                        ERR|||100^Segment sequence error^HL70357|E|||no_header|The frame does not begin with MSH\n";
        assert_eq!(shown(refused.reply(&stamp()).unwrap().bytes()), expected);
    }
}

#[test]
fn a_message_without_control_id_is_stored_where_the_feed_allows_it() {
    let message = b"MSH|^~\\&|A|B|C|D|||ADT^A01||P|2.5\rPID|1\r";
    assert_eq!(refused(message).fault(), Fault::NoControlId);
    let Verdict::Accept(accepted) = judge(kept(message), &LENIENT) else { panic!() };
    assert!(accepted.identity().is_none());
    assert!(shown(accepted.positive(&stamp()).expose()).ends_with("\nMSA|AA|\n"));
}

#[test]
fn a_control_id_that_no_reply_can_hold_is_refused() {
    let long = [b"MSH|^~\\&|A|B|C|D|||ADT|", &[b'9'; 3073][..], b"|P|2.5\r"].concat();
    assert_eq!(refused(&long).fault(), Fault::ControlIdUnusable);
    assert!(shown(&negative(&long)).contains("MSA|AE||"));
}

#[test]
fn absurdly_long_fields_are_left_out_and_never_the_control_id() {
    let long = "x".repeat(5000);
    let id = "9".repeat(2500);
    let message = format!("MSH|^~\\&|{long}|{long}|{long}|{long}|||ADT^{long}|{id}|{long}|2.5.{long}|||||||{long}\r");
    let reply = shown(&positive(message.as_bytes()));
    assert_eq!(reply, format!("MSH|^~\\&|||||20260101120000+0000||ACK|00ab||2.5\nMSA|AA|{id}\n"));
}

#[test]
fn acknowledgements_and_commit_blocks_are_neither_stored_nor_answered() {
    let is = |frame: &'static [u8], what| matches!(judge(kept(frame), &PLAIN), Verdict::Ignore(ignored) if ignored == what);
    assert!(is(b"MSH|^~\\&|A|B|C|D|||ACK^A01^ACK|1|P|2.5\rMSA|AA|9\r", Ignored::Acknowledgement));
    assert!(is(b"\x06", Ignored::CommitBlock));
    assert!(is(b"\x15", Ignored::CommitBlock));
    assert!(matches!(judge(kept(b"MSH|^~\\&|A|B|C|D|||RSP^K11|1|P|2.5\rMSA|AA|9\r"), &PLAIN), Verdict::Accept(_)));
}

#[test]
fn the_character_set_is_named_where_something_in_it_is_repeated() {
    let message = b"MSH|^~\\&|Caf\xE9|B|C|D|||ADT^A01|1|P|2.5||||||8859/1\r";
    let reply = positive(message);
    assert!(String::from_utf8_lossy(&reply).contains("|00ab|P|2.5||||||8859/1\rMSA|"));
    assert!(!String::from_utf8_lossy(&positive(b"MSH|^~\\&|Cafe|B|C|D|||ADT^A01|1|P|2.5||||||8859/1\r")).contains("8859"));
}

#[test]
fn an_oversize_head_is_answered_from_what_is_whole() {
    let head = b"MSH|^~\\&|A|B|C|D|||ADT^A01|77|P|2.5\rOBX|1|ED|CANARY";
    let reply = shown(judge_oversize(head, &PLAIN).reply(&stamp()).unwrap().bytes());
    assert!(reply.ends_with(
        "MSA|AR|77|Value too long\nERR|||104^Value too long^HL70357|E|||over_limit|The message is larger than this interface takes\n"
    ));
    let cut = judge_oversize(b"MSH|^~\\&|A|B|C|D|||ADT^A01|77", &PLAIN);
    assert!(shown(cut.reply(&stamp()).unwrap().bytes()).contains("MSA|AR||"), "an id that may be cut is not repeated");
    assert!(shown(judge_oversize(b"zzzzzzzzzzzz", &PLAIN).reply(&stamp()).unwrap().bytes()).contains("MSA|AR||"));
}

/// I7: neither replies nor verdicts print content.
#[test]
fn debug_shows_no_content() {
    let message = b"MSH|^~\\&|CANARY|B|C|D|||ADT^A01|CANARY|P|2.5\rPID|CANARY\r";
    let verdict = judge(kept(message), &PLAIN);
    let reply = accepted(message).store_failed(&stamp());
    assert!(!format!("{verdict:?} {reply:?} {:?}", judge_oversize(message, &PLAIN)).contains("CANARY"));
}

#[test]
fn times_are_written_as_hl7_does_in_utc() {
    assert_eq!(dtm_utc(0), "19700101000000+0000");
    assert_eq!(dtm_utc(1_793_491_200_000), "20261101000000+0000");
    assert_eq!(dtm_utc(i64::MAX), "19700101000000+0000");
}

proptest! {
    #[test]
    fn any_bytes_get_a_verdict_and_a_reply_within_bounds(bytes in prop::collection::vec(any::<u8>(), 0..6000), start in 0usize..4) {
        let start: &[u8] = [&b""[..], b"MSH", b"MSH|^~\\&|A|B|C|D|||ADT^A01|", b"FHS|^~\\&|"][start];
        let message = Bytes::from([start, &bytes[..]].concat());
        let reply = match judge(&message, &LENIENT) {
            Verdict::Accept(accepted) => Some(Reply(accepted.positive(&stamp()))),
            Verdict::Refuse(refused) => refused.reply(&stamp()),
            Verdict::Ignore(_) => None,
        };
        for reply in [reply, judge_oversize(&message, &PLAIN).reply(&stamp())].into_iter().flatten().filter(|r| !r.bytes().is_empty()) {
            let bytes = reply.bytes();
            prop_assert!(bytes.len() < REPLY_BYTES_MAX);
            prop_assert!(bytes.starts_with(b"\x0BMSH") || bytes.starts_with(b"\x0BBHS"));
            prop_assert!(bytes.ends_with(b"\r\x1C\r"));
            let inner = &bytes[1..bytes.len() - 2];
            prop_assert!(!inner.contains(&0x0B) && !inner.contains(&0x1C));
        }
    }

    /// What a sender looks for: the reply reads back with the same separator and its own MSH-10 in MSA-2.
    #[test]
    fn the_control_id_reads_back_from_the_reply(
        separator in prop_oneof![Just(b'|'), Just(b'$'), Just(b'#'), Just(b'*'), Just(b'\t'), 0x80u8..0xC0],
        id in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let mut id = id;
        id.retain(|b| ![separator, b'\r', b'\n', 0x0B, 0x1C].contains(b));
        id.push(b'1');
        let mut message = b"MSH|^~\\&|A|B|C|D|||ADT^A01|".to_vec();
        message.iter_mut().filter(|b| **b == b'|').for_each(|b| *b = separator);
        message.extend_from_slice(&id);
        message.extend_from_slice(&[separator, b'P', b'\r', b'P']);
        let reply = positive(&message);
        let segment = reply.split(|b| *b == b'\r').nth(1).unwrap();
        let fields: Vec<&[u8]> = segment.split(|b| *b == separator).collect();
        prop_assert_eq!(fields, vec![&b"MSA"[..], b"AA", &id]);
    }
}

/// Found by fuzzing: with its place in the reply such a field got a separator behind it, and what follows the line feed read as a segment.
/// I7: nothing of the message gets into a segment of the reply.
#[test]
fn a_field_with_a_line_feed_is_not_repeated_in_a_reply() {
    let reply = negative(b"MSH|^~\\&|A|B|C|D\nMSA\rPID|1\r");
    assert!(!reply.contains(&b'\n'), "{}", shown(&reply));
    let reply = positive(b"MSH|^~\\&|A|B|C\nZZ|D|||ADT^A0\n1|1|P|2.5\rPID|1\r");
    assert!(shown(&reply).starts_with("MSH|^~\\&||D|A|B|"), "{}", shown(&reply));
}

/// What is in front of the header, a fifth encoding character and ends of segments change nothing in a reply.
#[test]
fn odd_beginnings_and_five_encoding_characters_are_answered_like_any_other() {
    let expected = |encoding: &str| format!("MSH|{encoding}|C|D|A|B|20260101120000+0000||ACK^A01^ACK|00ab|P|2.7\nMSA|AA|7\n");
    let message = |encoding: &str, end: &str| format!("MSH|{encoding}|A|B|C|D|||ADT^A01|7|P|2.7{end}PID|1||CANARY{end}");
    for encoding in ["^~\\&#", "^~\\&", "^~\\", "^~", "^"] {
        for before in ["", "\u{feff}", "\r\n", " \t\0\u{feff}\n"] {
            for end in ["\r", "\n", "\r\n"] {
                let text = format!("{before}{}", message(encoding, end));
                assert_eq!(shown(&positive(text.as_bytes())), expected(encoding), "{encoding} {before:?} {end:?}");
                assert_eq!(shown(&positive(text.trim_end().as_bytes())), expected(encoding), "no final terminator");
            }
        }
    }
}
