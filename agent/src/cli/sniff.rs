//! `siteward sniff`: the shape of the next messages of a feed, printed as they come; no values.

use std::path::Path;
use std::time::Duration;

use super::ask::watch;
use super::{Failure, print};
use crate::clock;
use crate::source::structure::{Segment, Structure};
use crate::source::tap::Observed;
use crate::status::question::{Question, Request, WatchQuestion};
use crate::status::table::{printable, put};
use crate::status::watching::{Ended, Line};

pub(super) fn sniff(file: &Path, feed: &str, count: u64, time: Duration, json: bool) -> Result<(), Failure> {
    let time_s = time.as_secs().max(1);
    let question = WatchQuestion { feed: feed.to_owned(), count, time_s, expect: Vec::new() };
    let (mut number, mut printed, mut enough) = (0, Ok(()), false);
    let ended = watch(file, &Request::Get(Question::Watch(question)), |line| {
        let text = match &line {
            Line::Watching { .. } if json => String::new(),
            Line::Watching { .. } => format!("watching {feed} for the next {count} messages, at most {time_s} s\n"),
            Line::Message { message } => {
                number += 1;
                if json { format!("{}\n", serde_json::json!(message)) } else { render(number, message) }
            }
            Line::Ended { ended, dropped, .. } => {
                enough = *ended == Ended::Count;
                if json { String::new() } else { ending(*ended, number, *dropped) }
            }
        };
        printed = print(&printable(&text));
        printed.is_ok()
    })?;
    printed?;
    if !ended {
        return Err(Failure::Other("the agent went away before the watch had ended; start it and try again".into()));
    }
    if enough { Ok(()) } else { Err(Failure::No) }
}

fn ending(ended: Ended, number: u64, dropped: u64) -> String {
    let mut text = match (ended, number) {
        (Ended::Count, _) => String::new(),
        (Ended::Time, 0) => "no message came in this time: `siteward feeds` shows who is connected\n".to_owned(),
        (Ended::Time, n) => format!("{n} messages came in this time\n"),
    };
    if dropped > 0 {
        put(&mut text, format_args!("{dropped} more came faster than they could be shown\n"));
    }
    text
}

fn render(number: u64, observed: &Observed) -> String {
    let codes = &observed.codes;
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let mut out = format!(
        "{number}  {}  {}  {}, answered {}\n",
        clock::rfc3339(observed.at_ms),
        observed.peer,
        observed.fate.as_str(),
        observed.ack.as_str()
    );
    let all = [("type", &codes.message_type), ("version", &codes.version), ("processing", &codes.processing)];
    let rest = [("MSH-15", &codes.accept_ack), ("MSH-16", &codes.application_ack), ("charset", &codes.character_set)];
    let shown: Vec<String> = all.into_iter().chain(rest).map(|(name, code)| format!("{name} {}", or_dash(code))).collect();
    put(&mut out, format_args!("   {}\n", shown.join("  ")));
    structure(&mut out, &observed.structure);
    out
}

fn structure(out: &mut String, shape: &Structure) {
    let ends = [("CR", shape.line_ends.cr), ("LF", shape.line_ends.lf), ("CRLF", shape.line_ends.crlf)];
    let mut ends: Vec<String> = ends.into_iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name} {n}")).collect();
    if shape.line_ends.unterminated {
        ends.push("the last without".to_owned());
    }
    let delimiters = if shape.delimiters.is_empty() { "none found" } else { &shape.delimiters };
    put(out, format_args!("   {} bytes  delimiters {delimiters}  segment ends: {}\n", shape.bytes, ends.join(", ")));
    for segment in &shape.segments {
        out.push_str(format!("   {:<3}  {}", segment.name, fields(segment)).trim_end());
        out.push('\n');
    }
    if shape.segments_left_out > 0 {
        put(out, format_args!("   … and {} segments more\n", shape.segments_left_out));
    }
}

/// Fields that hold something: `number:bytes`.
fn fields(segment: &Segment) -> String {
    if segment.name == "?" {
        return format!("{} bytes that do not begin like a segment", segment.fields.iter().sum::<u64>());
    }
    let filled = segment.fields.iter().enumerate().filter(|(_, bytes)| **bytes > 0);
    let mut text = filled.map(|(i, bytes)| format!("{}:{bytes}", i + 1)).collect::<Vec<_>>().join(" ");
    if segment.fields_left_out > 0 {
        put(&mut text, format_args!(" … and {} fields more", segment.fields_left_out));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::answer::AckCode;
    use crate::source::msh;
    use crate::source::structure::Codes;
    use crate::source::tap::Fate;

    #[test]
    fn a_message_is_printed_by_its_lengths() {
        let message = b"MSH|^~\\&|CAB|ST|||2026||DFT^P03|ID1|P|2.5\rPID|1||4711\nnonsense";
        let header = msh::scan(message);
        let (codes, structure) = (Codes::of(header.as_ref()), Structure::of(message, header.as_ref()));
        let observed = Observed {
            at_ms: clock::RELEASED_AT_MS,
            peer: "10.0.0.1:5".into(),
            fate: Fate::Accepted,
            ack: AckCode::Aa,
            stage: None,
            codes,
            structure,
            matches: Vec::new(),
        };
        let expected = "\
1  2026-11-01T00:00:00.000Z  10.0.0.1:5  accepted, answered AA
   type DFT^P03  version 2.5  processing P  MSH-15 -  MSH-16 -  charset -
   62 bytes  delimiters |^~\\&  segment ends: CR 1, LF 1, the last without
   MSH  1:1 2:4 3:3 4:2 7:4 9:7 10:3 11:1 12:3
   PID  1:1 3:4
   ?    8 bytes that do not begin like a segment
";
        assert_eq!(render(1, &observed), expected);
        assert!(ending(Ended::Time, 0, 0).contains("siteward feeds"));
        assert!(ending(Ended::Count, 3, 2).contains("2 more"));
    }
}
