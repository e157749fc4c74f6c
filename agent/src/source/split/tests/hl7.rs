//! HL7 batches and concatenated messages.

use super::*;

const M: &str = "MSH|^~\\&|A|B|C|D|||ADT^A01|1|P|2.3\rPID|1\r";

fn batch(text: impl AsRef<[u8]>) -> (Vec<Piece>, Verdict) {
    split(&SplitSettings::Hl7Batch, text)
}

#[test]
fn a_batch_gives_its_messages() {
    let text = format!("FHS|^~\\&\rBHS|^~\\&\r{M}{M}BTS|2\rFTS|1\r");
    for (name, text) in [
        ("cr", text.clone()),
        ("lf", text.replace('\r', "\n")),
        ("crlf", text.replace('\r', "\r\n")),
        ("bom and blanks", format!("\u{feff}\r\n {text}\r\n\n")),
        ("no end of the last line", text.trim_end().to_owned()),
    ] {
        let (pieces, verdict) = batch(&text);
        assert_eq!((verdict.records, verdict.bad, verdict.claimed, verdict.state), (2, 0, Some(2), State::Complete), "{name}");
        assert!(shown(&pieces).iter().all(|m| m.starts_with("MSH|") && m.trim_end().ends_with("PID|1")), "{name}");
    }
    assert_eq!(shown(&batch(&text).0), [M, M], "bytes are kept");
}

#[test]
fn what_stands_between_messages_is_not_part_of_them() {
    let text = format!("\x0B{M}\x1C\r\x0B{M}\x1C\r\n\0{M}");
    assert_eq!(shown(&split(&SplitSettings::Hl7Concat, text).0), [M, M, M]);
    let crlf = M.replace('\r', "\r\n");
    assert_eq!(shown(&split(&SplitSettings::Hl7Concat, format!("{crlf}\r\n\r\n{crlf}")).0), [crlf.clone(), crlf]);
}

#[test]
fn a_message_like_line_inside_data_does_not_begin_a_message() {
    let inside = "MSH|^~\\&|A|B|C|D|||ORU^R01|1|P|2.3\rOBX|1|FT|||text\nMSH|^~\\&|X|Y|\nmore\r";
    assert_eq!(shown(&batch(inside).0), [inside]);
}

#[test]
fn counts_decide_whether_the_file_is_whole() {
    let state = |text: String| batch(text).1.state;
    let truncated = |code| State::Truncated { code };
    assert_eq!(state(format!("BHS|^~\\&\r{M}BTS|96\r")), truncated(codes::HL7_BATCH_COUNT));
    let more = State::CountMismatch { code: codes::HL7_BATCH_COUNT, claimed: 1, found: 2 };
    assert_eq!(state(format!("BHS|^~\\&\r{M}{M}BTS|1\r")), more);
    assert_eq!(state(format!("FHS|^~\\&\r{M}")), truncated(codes::HL7_FTS_MISSING));
    assert_eq!(state(format!("BHS|^~\\&\r{M}")), truncated(codes::HL7_BTS_MISSING));
    assert_eq!(state(format!("FHS|^~\\&\rBHS|^~\\&\r{M}FTS|1\r")), State::Flagged { code: codes::HL7_BTS_MISSING });
    assert_eq!(state(format!("FHS|^~\\&\rBHS|^~\\&\r{M}BTS|1\rFTS|3\r")), truncated(codes::HL7_FILE_COUNT));
    assert_eq!(state(format!("BHS|^~\\&\r{M}BTS|many\r")), State::Flagged { code: codes::HL7_COUNT_UNREADABLE });
    assert_eq!(state(M.to_owned()), State::Complete);
    assert_eq!(state("FHS|^~\\&\rBHS|^~\\&\rBTS|0\rFTS|1\r".to_owned()), State::Complete, "no message is legal");
    let concat = split(&SplitSettings::Hl7Concat, format!("BHS|^~\\&\r{M}BTS|96\r")).1;
    assert_eq!((concat.state, concat.claimed), (State::Complete, None));
}

#[test]
fn text_outside_of_messages_is_told() {
    let (pieces, verdict) = batch(format!("hello\rthere\r{M}BTS|1\rPID|lost\r"));
    assert_eq!(shown(&pieces), ["!hl7_stray", M, "!hl7_stray"]);
    assert_eq!(verdict.state, State::Complete);
    let (pieces, verdict) = batch("a,b\n1,2\n");
    assert_eq!(shown(&pieces), ["!hl7_stray"]);
    assert_eq!(verdict.state, State::Unusable { code: codes::HL7_NO_MESSAGE });
    assert_eq!(batch("").1.state, State::Complete);
}

#[test]
fn a_message_over_the_limit_still_counts() {
    let long = format!("MSH|^~\\&|A\rOBX|{}\r", "x".repeat(300));
    let text = format!("BHS|^~\\&\r{M}{long}{M}BTS|3\r");
    for step in [1, 10, 2000] {
        let (pieces, verdict) = split_with(&SplitSettings::Hl7Batch, limits(64), text.as_bytes(), step);
        assert_eq!(shown(&pieces), [M, "!record_over_limit", M]);
        assert_eq!(verdict.state, State::Complete);
    }
}
