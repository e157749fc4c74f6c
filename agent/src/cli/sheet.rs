//! The sign-off sheet of a vendor test. Pure: cases and observations in, verdicts and text out.
//!
//! An observation belongs to the first open case whose control id it has; else to the first open case without a control id whose message type
//! fits; else it is listed as unexpected. So a deliberate resend is two cases with one control id. The sheet holds names of the script, times,
//! types and codes, and that a control id was the expected one; never a value of a message (I7).

use std::fmt::Write as _;

use serde::Serialize;

use crate::clock;
use crate::config::cases::{Case, Expect};
use crate::record::Stage;
use crate::source::answer::AckCode;
use crate::source::tap::{Fate, Observed};

/// A sheet being filled.
#[derive(Debug)]
pub struct Sheet {
    cases: Vec<Case>,
    rows: Vec<Option<Row>>,
    unexpected: Vec<Row>,
}

/// How the watch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// To its end; nothing was missed.
    Whole,
    /// A slow reader missed something, or the agent stopped.
    Holes,
    /// Ended by hand before every case had come.
    Interrupted,
}

/// What was received for a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    pub received_at: String,
    pub message_type: String,
    pub fate: Fate,
    pub ack: AckCode,
    pub stage: Option<Stage>,
    /// Whether MSH-10 was the expected one; null where none was expected.
    pub control_id_matched: Option<bool>,
    pub passed: bool,
    /// What differs; empty where it passed.
    pub differs: Vec<String>,
}

#[derive(Serialize)]
struct CaseShown<'a> {
    case: &'a str,
    expected: String,
    /// Null where nothing came.
    received: Option<&'a Row>,
    passed: bool,
}

impl Sheet {
    pub fn new(cases: Vec<Case>) -> Self {
        let rows = cases.iter().map(|_| None).collect();
        Self { cases, rows, unexpected: Vec::new() }
    }

    /// Control ids to have compared, in the order in which `Observed` refers to them.
    pub fn expected_ids(&self) -> Vec<String> {
        self.cases.iter().filter_map(|case| case.control_id.clone()).collect()
    }

    /// Takes an observation; says the case it was taken for.
    pub fn take(&mut self, seen: &Observed) -> Option<usize> {
        let with_id: Vec<usize> = self.cases.iter().enumerate().filter(|(_, case)| case.control_id.is_some()).map(|(i, _)| i).collect();
        let by_id = seen.matches.iter().filter_map(|position| with_id.get(*position).copied());
        let by_id = by_id.filter(|case| self.rows[*case].is_none()).min();
        let in_order = || {
            let fits = |(i, case): &(usize, &Case)| {
                self.rows[*i].is_none() && case.control_id.is_none() && is_type(&case.message_type, &seen.codes.message_type)
            };
            self.cases.iter().enumerate().find(fits).map(|(i, _)| i)
        };
        let Some(index) = by_id.or_else(in_order) else {
            self.unexpected.push(row(None, seen));
            return None;
        };
        self.rows[index] = Some(row(Some(&self.cases[index]), seen));
        Some(index)
    }

    pub fn is_full(&self) -> bool {
        self.rows.iter().all(Option::is_some)
    }

    /// Every case came and was as expected, and nothing else came.
    pub fn passed(&self) -> bool {
        self.unexpected.is_empty() && self.rows.iter().all(|row| row.as_ref().is_some_and(|row| row.passed))
    }

    /// `3 of 20: deliberate resend: pass`.
    pub fn progress(&self, taken: Option<usize>) -> String {
        let came = self.rows.iter().flatten().count();
        let (name, verdict) = match taken.map(|index| (&self.cases[index].name, &self.rows[index])) {
            Some((name, Some(row))) if row.passed => (name.as_str(), "pass".to_owned()),
            Some((name, Some(row))) => (name.as_str(), format!("FAIL: {}", row.differs.join("; "))),
            _ => ("a message that no case expects", "FAIL".to_owned()),
        };
        format!("{came} of {}: {name}: {verdict}", self.cases.len())
    }

    fn shown(&self) -> impl Iterator<Item = CaseShown<'_>> {
        self.cases.iter().zip(&self.rows).map(|(case, row)| CaseShown {
            case: &case.name,
            expected: expected(case),
            received: row.as_ref(),
            passed: row.as_ref().is_some_and(|row| row.passed),
        })
    }

    pub fn json(&self, feed: &str, at_ms: i64, course: Course) -> serde_json::Value {
        serde_json::json!({
            "feed": feed,
            "at": clock::rfc3339(at_ms),
            "version": env!("CARGO_PKG_VERSION"),
            "passed": self.passed(),
            "complete": course == Course::Whole,
            "interrupted": course == Course::Interrupted,
            "cases": self.shown().collect::<Vec<_>>(),
            "unexpected": self.unexpected,
        })
    }

    /// Markdown.
    pub fn markdown(&self, feed: &str, at_ms: i64, course: Course) -> String {
        let mut out = format!("# Vendor test of feed {feed}\n\n");
        let passed = self.rows.iter().flatten().filter(|row| row.passed).count();
        let verdict = if self.passed() && course == Course::Whole { "PASS" } else { "FAIL" };
        let mut line = |text: String| writeln!(out, "{text}").expect("a String takes everything");
        line(format!("{verdict}: {passed} of {} cases passed, {} messages that no case expects.", self.cases.len(), self.unexpected.len()));
        match course {
            Course::Whole => {}
            Course::Holes => line("The watch lost messages or was cut short; this sheet proves nothing. Repeat the test.".to_owned()),
            Course::Interrupted => line("INTERRUPTED before every case had come; what stands below is how far the test went.".to_owned()),
        }
        line(format!("Written {} by siteward {}. It holds no values of any message.\n", clock::rfc3339(at_ms), env!("CARGO_PKG_VERSION")));
        line("| # | case | expected | received | type | control id | outcome | ACK | stage | result |".to_owned());
        line("|---|---|---|---|---|---|---|---|---|---|".to_owned());
        for (number, shown) in self.shown().enumerate() {
            let rest = shown.received.map_or_else(|| "- | - | - | - | - | - | FAIL: did not come".to_owned(), cells);
            line(format!("| {} | {} | {} | {rest} |", number + 1, cell(shown.case), cell(&shown.expected)));
        }
        for row in &self.unexpected {
            line(format!("| - | - | nothing | {} |", cells(row)));
        }
        line("\nVendor: ____________________   Hospital: ____________________   Date: ____________________".to_owned());
        out
    }
}

fn cells(row: &Row) -> String {
    let id = match row.control_id_matched {
        Some(true) => "matched",
        Some(false) => "other",
        None => "-",
    };
    let result = if row.passed { "pass".to_owned() } else { format!("FAIL: {}", row.differs.join("; ")) };
    let stage = row.stage.map_or("-", Stage::as_str);
    let (kind, fate, ack) = (cell(&row.message_type), row.fate.as_str(), row.ack.as_str());
    format!("{} | {kind} | {id} | {fate} | {ack} | {stage} | {}", row.received_at, cell(&result))
}

/// Text in a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn expected(case: &Case) -> String {
    let mut parts = vec![case.expect.as_str().to_owned()];
    if !case.message_type.is_empty() {
        parts.push(case.message_type.clone());
    }
    parts.extend(case.control_id.as_ref().map(|_| "control id".to_owned()));
    parts.extend(case.ack.map(|ack| format!("ACK {}", ack.as_str())));
    parts.extend(case.stage.map(|stage| format!("stage {}", stage.as_str())));
    parts.join(", ")
}

/// `DFT^P03` is `DFT^P03^DFT_P03`; `DFT` is both; nothing is anything.
fn is_type(wanted: &str, have: &str) -> bool {
    let mut have = have.split('^');
    wanted.is_empty() || wanted.split('^').all(|part| have.next() == Some(part))
}

fn row(case: Option<&Case>, seen: &Observed) -> Row {
    let differs = case.map_or_else(|| vec!["no case expects it".to_owned()], |case| differences(case, seen));
    Row {
        received_at: clock::rfc3339(seen.at_ms),
        message_type: seen.codes.message_type.clone(),
        fate: seen.fate,
        ack: seen.ack,
        stage: seen.stage,
        control_id_matched: case.and_then(|case| case.control_id.as_ref()).map(|_| true),
        passed: differs.is_empty(),
        differs,
    }
}

fn differences(case: &Case, seen: &Observed) -> Vec<String> {
    let mut differs = Vec::new();
    let fate = match case.expect {
        Expect::Accepted | Expect::Test => Fate::Accepted,
        Expect::Duplicate => Fate::Duplicate,
        Expect::Refused => Fate::Refused,
        Expect::Oversize => Fate::Oversize,
    };
    if seen.fate != fate {
        differs.push(format!("was {}, not {}", seen.fate.as_str(), fate.as_str()));
    }
    if !is_type(&case.message_type, &seen.codes.message_type) {
        differs.push(format!("its type is {}", seen.codes.message_type));
    }
    let is_stored = matches!(fate, Fate::Accepted | Fate::Duplicate);
    let ack_fits = match case.ack {
        Some(ack) => seen.ack == ack,
        None => seen.ack == AckCode::None || seen.ack.is_positive() == is_stored,
    };
    if !ack_fits {
        differs.push(format!("was answered {}", seen.ack.as_str()));
    }
    let stage = case.stage.or((case.expect == Expect::Test).then_some(Stage::Test));
    if let Some(wanted) = stage.filter(|wanted| seen.stage != Some(*wanted)) {
        differs.push(format!("its event is marked {}, not {}", seen.stage.map_or("nothing", Stage::as_str), wanted.as_str()));
    }
    differs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::structure::{Codes, Structure};

    fn case(name: &str, expect: Expect, id: Option<&str>) -> Case {
        let control_id = id.map(str::to_owned);
        Case { name: name.into(), message_type: "DFT^P03".into(), expect, control_id, ack: None, stage: None }
    }

    fn seen(fate: Fate, ack: AckCode, kind: &str, matches: &[usize]) -> Observed {
        let codes = Codes { message_type: kind.into(), ..Codes::default() };
        let structure = Structure::of(b"", None);
        let stage = (fate == Fate::Accepted).then_some(Stage::Live);
        Observed { at_ms: 0, peer: "p".into(), fate, ack, stage, codes, structure, matches: matches.to_vec() }
    }

    #[test]
    fn a_resend_fills_the_second_case_of_its_control_id() {
        let cases = vec![
            case("any", Expect::Accepted, None),
            case("first", Expect::Accepted, Some("V1")),
            case("again", Expect::Duplicate, Some("V1")),
        ];
        let mut sheet = Sheet::new(cases);
        assert_eq!(sheet.expected_ids(), ["V1", "V1"]);
        assert_eq!(sheet.take(&seen(Fate::Accepted, AckCode::Aa, "DFT^P03^DFT_P03", &[0, 1])), Some(1));
        assert_eq!(sheet.take(&seen(Fate::Duplicate, AckCode::Aa, "DFT^P03^DFT_P03", &[0, 1])), Some(2));
        assert!(!sheet.is_full());
        assert_eq!(sheet.take(&seen(Fate::Accepted, AckCode::None, "DFT^P03", &[])), Some(0));
        assert!(sheet.is_full() && sheet.passed());
        let text = sheet.markdown("or-usage", 0, Course::Whole);
        assert!(text.contains("PASS: 3 of 3") && text.contains("| matched | duplicate | AA |") && !text.contains("V1"), "{text}");
        assert!(sheet.markdown("or-usage", 0, Course::Holes).contains("FAIL"), "a watch with holes proves nothing");
        let text = sheet.markdown("or-usage", 0, Course::Interrupted);
        assert!(text.contains("FAIL") && text.contains("INTERRUPTED"), "{text}");
        let json = sheet.json("or-usage", 0, Course::Interrupted);
        assert_eq!((&json["complete"], &json["interrupted"]), (&false.into(), &true.into()));
    }

    #[test]
    fn what_differs_is_named_and_what_is_missing_fails() {
        let test = Case { ack: Some(AckCode::Ca), ..case("as a test", Expect::Test, None) };
        let mut sheet = Sheet::new(vec![test, case("large", Expect::Oversize, None), case("never", Expect::Refused, None)]);
        sheet.take(&seen(Fate::Accepted, AckCode::Aa, "DFT^P03", &[]));
        assert!(
            sheet.progress(Some(0)).contains("FAIL: was answered AA; its event is marked live, not test"),
            "{}",
            sheet.progress(Some(0))
        );
        sheet.take(&seen(Fate::Oversize, AckCode::Ar, "DFT^P03", &[]));
        assert_eq!(sheet.take(&seen(Fate::Accepted, AckCode::Aa, "ADT^A01", &[])), None);
        assert!(!sheet.passed());
        let text = sheet.markdown("f", 0, Course::Whole);
        assert!(
            text.contains("1 of 3 cases passed, 1 messages") && text.contains("FAIL: did not come") && text.contains("| nothing |"),
            "{text}"
        );
        let json = sheet.json("f", 0, Course::Whole);
        assert_eq!((json["passed"].as_bool(), json["cases"][1]["passed"].as_bool()), (Some(false), Some(true)));
        assert_eq!(json["cases"][2]["received"], serde_json::Value::Null);
    }
}
