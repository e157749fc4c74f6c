//! The whole answer table: MSH-15 × MSH-16 × what became of the message × every version of HL7, and what the feed's settings change in it.
//! Expected values are written out; none is computed by what is tested.

use super::tests::{PLAIN, kept, shown, stamp};
use super::*;
use crate::config::settings::{AppAck, StrictSettings, StrictType};

/// MSH-15, MSH-16, and MSA-1 for: stored, store failed, header refused, content refused. `-` for no reply.
type Row = (&'static str, &'static str, [&'static str; 4]);

const ORIGINAL: [&str; 4] = ["AA", "AR", "AR", "AE"];
const ACCEPT: [&str; 4] = ["CA", "CE", "CR", "CE"];
const NOTHING: [&str; 4] = ["-", "-", "-", "-"];

const TABLE: [Row; 25] = [
    ("", "", ORIGINAL),
    ("", "AL", ORIGINAL),
    ("", "NE", NOTHING),
    ("", "ER", ["-", "AR", "AR", "AE"]),
    ("", "SU", ["AA", "-", "-", "-"]),
    ("AL", "", ACCEPT),
    ("AL", "AL", ACCEPT),
    ("AL", "NE", ACCEPT),
    ("AL", "ER", ACCEPT),
    ("AL", "SU", ACCEPT),
    ("NE", "", ORIGINAL),
    ("NE", "AL", ORIGINAL),
    ("NE", "NE", NOTHING),
    ("NE", "ER", ["-", "AR", "AR", "AE"]),
    ("NE", "SU", ["AA", "-", "-", "-"]),
    ("ER", "", ["-", "CE", "CR", "CE"]),
    ("ER", "AL", ["-", "CE", "CR", "CE"]),
    ("ER", "NE", ["-", "CE", "CR", "CE"]),
    ("ER", "ER", ["-", "CE", "CR", "CE"]),
    ("ER", "SU", ["-", "CE", "CR", "CE"]),
    ("SU", "", ["CA", "-", "-", "-"]),
    ("SU", "AL", ["CA", "-", "-", "-"]),
    ("SU", "NE", ["CA", "-", "-", "-"]),
    ("SU", "ER", ["CA", "-", "-", "-"]),
    ("SU", "SU", ["CA", "-", "-", "-"]),
];

/// What senders write there beside table 0155.
const ODD_VALUES: [Row; 4] = [("\"\"", "\"\"", ORIGINAL), ("ACCEPT", "ACKNOL", ORIGINAL), ("al", "al", ORIGINAL), ("AL^x", " NE ", ACCEPT)];

/// `app_ack = "same_channel"`: where it differs. `CA+AA`: both, in this order, in one write.
const SAME_CHANNEL: [Row; 12] = [
    ("AL", "", ACCEPT),
    ("AL", "NE", ACCEPT),
    ("AL", "AL", ["CA+AA", "CE", "CR", "CE"]),
    ("AL", "SU", ["CA+AA", "CE", "CR", "CE"]),
    ("AL", "ER", ACCEPT),
    ("ER", "AL", ["AA", "CE", "CR", "CE"]),
    ("ER", "ER", ["-", "CE", "CR", "CE"]),
    ("ER", "SU", ["AA", "CE", "CR", "CE"]),
    ("SU", "AL", ["CA+AA", "-", "-", "-"]),
    ("SU", "ER", ["CA", "-", "-", "-"]),
    ("NE", "AL", ORIGINAL),
    ("", "", ORIGINAL),
];

/// `app_ack = "aa_only"`: one AA where either field wants an answer.
const AA_ONLY: [Row; 12] = [
    ("AL", "", ACCEPT),
    ("AL", "NE", ACCEPT),
    ("AL", "AL", ORIGINAL),
    ("AL", "ER", ORIGINAL),
    ("AL", "SU", ORIGINAL),
    ("ER", "AL", ORIGINAL),
    ("ER", "ER", ["-", "AR", "AR", "AE"]),
    ("ER", "SU", ORIGINAL),
    ("SU", "ER", ORIGINAL),
    ("SU", "SU", ["AA", "-", "-", "-"]),
    ("NE", "NE", NOTHING),
    ("", "", ORIGINAL),
];

/// How a version of HL7 writes a reply to `ADT^A01`.
#[derive(Clone, Copy)]
struct Form {
    version: &'static str,
    message_type: &'static str,
    /// MSA-3 is there.
    text: bool,
    /// ERR-1 (up to 2.4) and not ERR-2 to ERR-8.
    old_error: bool,
}

const fn form(version: &'static str, message_type: &'static str, text: bool, old_error: bool) -> Form {
    Form { version, message_type, text, old_error }
}

const VERSIONS: [Form; 15] = [
    form("2.1", "ACK", true, true),
    form("2.2", "ACK", true, true),
    form("2.3", "ACK", true, true),
    form("2.3.1", "ACK^A01", true, true),
    form("2.4", "ACK^A01", true, true),
    form("2.5", "ACK^A01^ACK", true, false),
    form("2.5.1", "ACK^A01^ACK", true, false),
    form("2.6", "ACK^A01^ACK", true, false),
    form("2.7", "ACK^A01^ACK", false, false),
    form("2.7.1", "ACK^A01^ACK", false, false),
    form("2.8", "ACK^A01^ACK", false, false),
    form("2.8.1", "ACK^A01^ACK", false, false),
    form("2.8.2", "ACK^A01^ACK", false, false),
    form("2.9", "ACK^A01^ACK", false, false),
    form("2.9.1", "ACK^A01^ACK", false, false),
];

/// MSA-2, MSA-3, ERR up to 2.4, and ERR from 2.5 on, for each of the four.
const SAID: [(&str, &str, &str, &str); 4] = [
    ("42", "", "", ""),
    (
        "42",
        "Application internal error",
        "ERR|^^^207&Application internal error&HL70357\n",
        "ERR|||207^Application internal error^HL70357|E|||store_failed|The message was not stored, send it again later\n",
    ),
    (
        "42",
        "Unsupported message type",
        "ERR|MSH^1^9^200&Unsupported message type&HL70357\n",
        "ERR||MSH^1^9|200^Unsupported message type^HL70357|E|||unsupported_type|This interface does not take this message type\n",
    ),
    (
        "",
        "Required field missing",
        "ERR|MSH^1^10^101&Required field missing&HL70357\n",
        "ERR||MSH^1^10|101^Required field missing^HL70357|E|||no_control_id|Fill MSH-10 and send again\n",
    ),
];

/// The expected reply, frame by frame; nothing where `codes` is `-`.
fn expected(form: Form, disposition: usize, codes: &str) -> String {
    let (id, text, old, new) = SAID[disposition];
    let Form { version, message_type, .. } = form;
    let codes: Vec<&str> = codes.split('+').filter(|code| *code != "-").collect();
    let frames = codes.iter().enumerate().map(|(n, code)| {
        let own_id = ["00ab", "00ab01"][n];
        let text = if form.text && !text.is_empty() { format!("|{text}") } else { String::new() };
        let error = if form.old_error { old } else { new };
        format!("MSH|^~\\&|C|D|A|B|20260101120000+0000||{message_type}|{own_id}|P|{version}\nMSA|{code}|{id}{text}\n{error}")
    });
    frames.collect::<Vec<_>>().join("\u{1c}\n\u{b}")
}

fn message(form: Form, accept: &str, application: &str, id: &str) -> &'static Bytes {
    let version = form.version;
    kept(format!("MSH|^~\\&|A|B|C|D|20260101||ADT^A01|{id}|P|{version}|||{accept}|{application}\rPID|1||CANARY\r").as_bytes())
}

/// What is said in each of the four cases.
fn replies(form: Form, accept: &str, application: &str, answers: &AnswerSettings) -> [String; 4] {
    let answers: &'static AnswerSettings = Box::leak(Box::new(answers.clone()));
    let only_dft = StrictSettings { types: vec![StrictType { code: "DFT".into(), trigger: None }], ..StrictSettings::default() };
    let strict: &'static AnswerSettings = Box::leak(Box::new(AnswerSettings { strict: only_dft, ..answers.clone() }));
    let good = message(form, accept, application, "42");
    let refused = |frame, answers| match judge(frame, answers) {
        Verdict::Refuse(refused) => refused.reply(&stamp()),
        other => panic!("{other:?}"),
    };
    let Verdict::Accept(accepted) = judge(good, answers) else { panic!("it is a good message") };
    let stored = accepted.positive(&stamp());
    let all = [
        stored.expose().clone(),
        accepted.store_failed(&stamp()).map(|reply| reply.bytes().clone()).unwrap_or_default(),
        refused(good, strict).map(|reply| reply.bytes().clone()).unwrap_or_default(),
        refused(message(form, accept, application, ""), answers).map(|reply| reply.bytes().clone()).unwrap_or_default(),
    ];
    all.map(|reply| if reply.is_empty() { String::new() } else { shown(&reply) })
}

fn hold(rows: &[Row], answers: &AnswerSettings) {
    for (accept, application, codes) in rows {
        for form in VERSIONS {
            let replies = replies(form, accept, application, answers);
            for (disposition, reply) in replies.iter().enumerate() {
                let expected = expected(form, disposition, codes[disposition]);
                let version = form.version;
                assert_eq!(*reply, expected, "MSH-15 {accept:?} MSH-16 {application:?} disposition {disposition} version {version}");
            }
        }
    }
}

#[test]
fn msh_15_and_16_decide_which_reply_is_given_for_every_disposition_in_every_version() {
    hold(&TABLE, &PLAIN);
}

#[test]
fn values_outside_table_0155_count_as_empty() {
    hold(&ODD_VALUES, &PLAIN);
    let unknown = |accept, application| match judge(message(VERSIONS[4], accept, application, "1"), &PLAIN) {
        Verdict::Accept(accepted) => accepted.has_unknown_manner(),
        other => panic!("{other:?}"),
    };
    assert!(unknown("ACCEPT", "") && unknown("", "al") && !unknown("\"\"", "") && !unknown("AL", "NE"));
}

#[test]
fn both_acknowledgements_go_out_together_where_the_feed_says_so() {
    hold(&SAME_CHANNEL, &AnswerSettings { app_ack: AppAck::SameChannel, ..PLAIN.clone() });
}

#[test]
fn aa_answers_for_both_where_the_feed_says_so() {
    hold(&AA_ONLY, &AnswerSettings { app_ack: AppAck::AaOnly, ..PLAIN.clone() });
}

/// An oversize frame and a message too large for the store are told alike, as a header that is not acceptable.
#[test]
fn what_is_over_the_limit_is_rejected_by_the_same_table() {
    for (accept, application, codes) in TABLE {
        let good = message(VERSIONS[4], accept, application, "42");
        let Verdict::Accept(accepted) = judge(good, &PLAIN) else { panic!() };
        let (cut, whole) = (judge_oversize(good, &PLAIN).reply(&stamp()), accepted.too_large(&stamp()));
        assert_eq!(cut, whole);
        let code = whole.map_or("-".to_owned(), |reply| shown(reply.bytes()).lines().nth(1).unwrap()[4..6].to_owned());
        assert_eq!(code, codes[2], "MSH-15 {accept:?} MSH-16 {application:?}");
    }
}
