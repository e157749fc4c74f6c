//! Replies to several messages in one frame, and the strict edits.

use super::tests::{PLAIN, kept, shown, stamp};
use super::*;
use crate::config::settings::{AppAck, BatchAck, StrictSettings, StrictType};
use crate::limits::REPLY_BYTES_MAX;

fn each() -> AnswerSettings {
    AnswerSettings { batch_ack: BatchAck::Each, ..PLAIN.clone() }
}

fn message(id: &str, more: &str) -> String {
    format!("MSH|^~\\&|X|Y|C|D|||ADT^A01|{id}|P|2.3|||{more}\rPID|1||CANARY\r")
}

fn batch(messages: &str, count: usize) -> String {
    format!("FHS|^~\\&|A|B|C|D|2024||f||F1\rBHS|^~\\&|A|B|C|D|2024||||B1\r{messages}BTS|{count}\rFTS|1\r")
}

fn judged<'a>(text: &str, answers: &AnswerSettings) -> Verdict<'a> {
    judge(kept(text.as_bytes()), Box::leak(Box::new(answers.clone())))
}

fn accepted<'a>(text: &str, answers: &AnswerSettings) -> Accepted<'a> {
    match judged(text, answers) {
        Verdict::Accept(accepted) => accepted,
        other => panic!("{other:?}"),
    }
}

fn positive(text: &str, answers: &AnswerSettings) -> String {
    let reply = accepted(text, answers).positive(&stamp());
    if reply.is_empty() { String::new() } else { shown(reply.expose()) }
}

fn refused(text: &str, answers: &AnswerSettings) -> (Fault, String) {
    match judged(text, answers) {
        Verdict::Refuse(refused) => (refused.fault(), refused.reply(&stamp()).map_or(String::new(), |reply| shown(reply.bytes()))),
        other => panic!("{other:?}"),
    }
}

const BHS: &str = "BHS|^~\\&|C|D|A|B|20260101120000+0000||||00ab|F1\n";

fn ack(n: u8, code: &str, id: &str) -> String {
    format!("MSH|^~\\&|C|D|X|Y|20260101120000+0000||ACK|00ab{n:02X}|P|2.3\nMSA|{code}|{id}\n")
}

#[test]
fn a_batch_is_answered_with_one_acknowledgement_for_each_message() {
    let text = batch(&[message("M1", "|"), message("M2", "AL|NE"), message("M3", "NE|NE"), message("M4", "NE|AL")].concat(), 4);
    let reply = positive(&text, &PLAIN);
    assert_eq!(reply, [BHS, &ack(1, "AA", "M1"), &ack(2, "CA", "M2"), &ack(3, "AA", "M4"), "BTS|3\n"].concat());
    let accepted = accepted(&text, &PLAIN);
    assert_eq!(&accepted.identity().unwrap().control_id[..], b"F1");
    assert!(accepted.is_several() && accepted.mismatch().is_none());
}

#[test]
fn or_each_in_a_frame_of_its_own() {
    let text = batch(&[message("M1", "|"), message("M2", "AL|NE")].concat(), 2);
    assert_eq!(positive(&text, &each()), [ack(1, "AA", "M1"), ack(2, "CA", "M2")].join("\u{1c}\n\u{b}"));
}

#[test]
fn two_messages_in_a_frame_are_a_batch_without_an_id() {
    let text = [message("M1", "|"), message("M2", "|").replace('|', "$")].concat();
    let expected =
        ["BHS|^~\\&|C|D|X|Y|20260101120000+0000||||00ab|\n", &ack(1, "AA", "M1"), &ack(2, "AA", "M2").replace('|', "$"), "BTS|2\n"];
    assert_eq!(positive(&text, &PLAIN), expected.concat(), "each acknowledgement speaks with its message's delimiters");
    assert_eq!(&accepted(&text, &PLAIN).identity().unwrap().control_id[..], b"M1");
}

#[test]
fn a_batch_of_nothing_is_answered_with_nothing_in_it() {
    assert_eq!(positive(&batch("", 0), &PLAIN), [BHS, "BTS|0\n"].concat());
    assert!(positive(&batch("", 0), &each()).ends_with("MSA|AA|F1\n"));
}

#[test]
fn where_no_message_wants_an_answer_there_is_none() {
    let text = batch(&message("M1", "NE|NE"), 1);
    assert_eq!((positive(&text, &PLAIN), positive(&text, &each())), (String::new(), String::new()));
}

/// The rule for batches whose acknowledgements do not fit into one reply.
#[test]
fn a_long_batch_is_answered_as_a_whole() {
    let many: String = (0..500).map(|n| message(&format!("M{n}"), "AL|NE")).collect();
    let one = "MSH|^~\\&|C|D|A|B|20260101120000+0000||ACK|00ab01||2.3\nMSA|CA|F1\n";
    let expected = [BHS, &one.replace("||2.3", "|P|2.3"), "BTS|1|500\n"].concat();
    assert_eq!(positive(&batch(&many, 500), &PLAIN), expected);
    assert_eq!(positive(&batch(&many, 500), &each()), one.replace("||2.3", "|P|2.3"));
    for count in 1..80 {
        let some: String = (0..count).map(|n| message(&format!("M{n}"), "|")).collect();
        for answers in [&PLAIN, &each()] {
            let reply = accepted(&batch(&some, count), answers).positive(&stamp());
            assert!(reply.len() < REPLY_BYTES_MAX, "{count} messages: {} bytes", reply.len());
        }
    }
}

#[test]
fn a_message_without_control_id_among_others_is_told_so_and_the_rest_is_stored() {
    let text = batch(&[message("", "|"), message("M2", "|")].concat(), 2);
    let reply = positive(&text, &PLAIN);
    assert!(reply.contains("\nMSA|AE||Required field missing\nERR|MSH^1^10^101&") && reply.contains("\nMSA|AA|M2\n"), "{reply}");
    let (fault, reply) = refused(&batch(&message("", "|"), 1), &PLAIN);
    assert_eq!(fault, Fault::NoControlId, "nothing of it could be answered positively");
    assert!(reply.contains("MSA|AE|") && reply.ends_with("BTS|1\n"));
    let lenient = AnswerSettings { allow_missing_control_id: true, ..PLAIN.clone() };
    assert!(positive(&batch(&message("", "|"), 1), &lenient).contains("\nMSA|AA|\n"));
}

#[test]
fn when_the_store_fails_every_message_of_a_batch_is_told() {
    let text = batch(&[message("M1", "|"), message("M2", "AL|NE")].concat(), 2);
    let reply = shown(accepted(&text, &PLAIN).store_failed(&stamp()).unwrap().bytes());
    assert!(reply.contains("\nMSA|AR|M1|Application internal error\n") && reply.contains("\nMSA|CE|M2|Application internal error\n"));
    let reply = shown(accepted(&text, &PLAIN).too_large(&stamp()).unwrap().bytes());
    assert!(reply.contains("\nMSA|AR|M1|Value too long\n") && reply.contains("\nMSA|CR|M2|Value too long\n"));
}

#[test]
fn acknowledgements_in_a_batch_are_not_acknowledged() {
    let ack = "MSH|^~\\&|X|Y|C|D|||ACK|A1|P|2.3\rMSA|AA|7\r";
    let text = batch(&[ack, &message("M2", "|")].concat(), 2);
    let reply = positive(&text, &PLAIN);
    assert!(!reply.contains("A1") && reply.ends_with("MSA|AA|M2\nBTS|1\n"));
    assert!(matches!(judged(&batch(ack, 1), &PLAIN), Verdict::Ignore(Ignored::Acknowledgement)));
}

#[test]
fn a_batch_that_does_not_add_up_is_stored_and_flagged() {
    let text = batch(&message("M1", "|"), 96);
    assert_eq!(accepted(&text, &PLAIN).mismatch(), Some(Mismatch::Messages { claimed: 96, found: 1 }));
    assert!(positive(&text, &PLAIN).contains("MSA|AA|M1"));
}

#[test]
fn msh_11_t_or_d_makes_a_test_of_a_message_and_of_a_frame_that_holds_one() {
    let is_test = |id: &str| accepted(&message("1", "|").replace("|P|", &format!("|{id}|")), &PLAIN).is_test();
    assert!(is_test("T") && is_test("D") && is_test("T^A") && is_test("t"));
    assert!(!is_test("P") && !is_test("") && !is_test("P^T") && !is_test("X"));
    let production = message("1", "|");
    let test = production.replace("|P|", "|T|");
    let of = |text: String| {
        let accepted = accepted(&text, &PLAIN);
        (accepted.is_test(), accepted.mixes_tests())
    };
    assert_eq!(of([production.as_str(), &production].concat()), (false, false));
    assert_eq!(of([test.as_str(), &test].concat()), (true, false));
    assert_eq!(of([production.as_str(), &test].concat()), (true, true));
}

fn strict() -> AnswerSettings {
    let strict = StrictSettings {
        types: vec![
            StrictType { code: "ADT".into(), trigger: None },
            StrictType { code: "DFT".into(), trigger: Some("P03".into()) },
            StrictType { code: "DFT".into(), trigger: Some("P11".into()) },
        ],
        versions: vec!["2.3".into(), "2.5.1".into()],
        processing_ids: vec!["P".into()],
    };
    AnswerSettings { strict, ..PLAIN.clone() }
}

#[test]
fn strict_edits_refuse_by_type_event_version_and_processing_id() {
    let header = |kind: &str, id: &str, version: &str| format!("MSH|^~\\&|A|B|C|D|||{kind}|42|{id}|{version}\rPID|1||CANARY\r");
    let told = |kind, id, version| match judged(&header(kind, id, version), &strict()) {
        Verdict::Accept(_) => "stored".to_owned(),
        Verdict::Refuse(refused) => {
            let reply = shown(refused.reply(&stamp()).unwrap().bytes());
            assert!(reply.contains("MSA|AR|42") && !reply.contains("CANARY"));
            format!("{} {}", refused.fault().name(), reply.lines().nth(2).unwrap())
        }
        Verdict::Ignore(_) => panic!(),
    };
    for good in [("ADT^A01", "P", "2.3"), ("ADT", "P", "2.5.1"), ("DFT^P03^DFT_P03", "P^T", "2.3"), ("DFT^P11", "P", "2.5.1^USA")] {
        assert_eq!(told(good.0, good.1, good.2), "stored", "{good:?}");
    }
    let cases = [
        (("ORU^R01", "P", "2.3"), "unsupported_type ERR|MSH^1^9^200&Unsupported message type&HL70357"),
        (("", "P", "2.3"), "unsupported_type ERR|MSH^1^9^200&Unsupported message type&HL70357"),
        (("DFT^P04", "P", "2.3"), "unsupported_event ERR|MSH^1^9^201&Unsupported event code&HL70357"),
        (("DFT", "P", "2.3"), "unsupported_event ERR|MSH^1^9^201&Unsupported event code&HL70357"),
        (("ADT^A01", "T", "2.3"), "unsupported_processing_id ERR|MSH^1^11^202&Unsupported processing id&HL70357"),
        (("ADT^A01", "", "2.3"), "unsupported_processing_id ERR|MSH^1^11^202&Unsupported processing id&HL70357"),
        (("ADT^A01", "P", "2.4"), "unsupported_version ERR|MSH^1^12^203&Unsupported version id&HL70357"),
    ];
    for ((kind, id, version), expected) in cases {
        assert_eq!(told(kind, id, version), expected);
    }
    assert!(told("ADT^A01", "P", "").starts_with("unsupported_version ERR||MSH^1^12|203^"));
}

#[test]
fn a_batch_with_a_message_that_is_not_taken_is_not_stored_and_the_others_may_come_again() {
    let text = batch(&[message("M1", "|"), message("M2", "AL|").replace("ADT^A01", "ORU^R01")].concat(), 2);
    let (fault, reply) = refused(&text, &strict());
    assert_eq!(fault, Fault::UnsupportedType);
    assert!(reply.contains("\nMSA|AR|M1|Application internal error\n") && reply.contains("\nMSA|CR|M2|Unsupported message type\n"));
}

#[test]
fn the_second_acknowledgement_is_left_out_where_both_do_not_fit() {
    let both = AnswerSettings { app_ack: AppAck::SameChannel, ..PLAIN.clone() };
    let short = positive(&message("1", "AL|AL"), &both);
    assert!(short.contains("MSA|CA|1\n\u{1c}\n\u{b}MSH") && short.ends_with("MSA|AA|1\n"));
    let long = positive(&message(&"9".repeat(2500), "AL|AL"), &both);
    assert!(long.contains("MSA|CA|9") && !long.contains("MSA|AA"));
}

/// I7: nothing but control ids and addresses of the messages comes back.
#[test]
fn no_content_is_repeated() {
    let text = batch(&[message("M1", "|"), message("", "|")].concat(), 9);
    let accepted = accepted(&text, &PLAIN);
    let told = [positive(&text, &PLAIN), shown(accepted.store_failed(&stamp()).unwrap().bytes()), format!("{accepted:?}")].concat();
    assert!(!told.contains("CANARY"));
}

proptest::proptest! {
    #[test]
    fn any_batch_gets_replies_within_bounds(
        lines in proptest::collection::vec(proptest::sample::select(vec![
            "FHS|^~\\&|A|B|C|D|2024||f||F1", "BHS|^~\\&|A|B|C|D|2024||||B1", "MSH|^~\\&|A|B|C|D|||ADT^A01|7|P|2.5|||AL|AL", "BTS|2", "FTS|1",
            "MSH$%~\\&$A$B$C$D$$$ADT$$P$2.5", "MSH|", "PID|1", "MSH|^~\\&|A|B|C|D|||ACK|1|P|2.3\rMSA|AA|5",
        ]), 0..120),
        which in 0usize..3,
    ) {
        let answers = [PLAIN.clone(), each(), strict()][which].clone();
        let text = Bytes::from(lines.join("\r"));
        let reply = match judge(&text, &answers) {
            Verdict::Accept(accepted) => Some(accepted.positive(&stamp()).expose().clone()),
            Verdict::Refuse(refused) => refused.reply(&stamp()).map(|reply| reply.bytes().clone()),
            Verdict::Ignore(_) => None,
        };
        for bytes in reply.into_iter().filter(|bytes| !bytes.is_empty()) {
            proptest::prop_assert!(bytes.len() < REPLY_BYTES_MAX);
            proptest::prop_assert!(bytes.starts_with(b"\x0B") && bytes.ends_with(b"\r\x1C\r"));
        }
    }
}
