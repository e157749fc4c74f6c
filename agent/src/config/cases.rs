//! The cases of a vendor test: a small TOML file, read as strictly as the configuration.
//!
//! ```toml
//! [[case]]
//! name = "charge for a guide wire"
//! type = "DFT^P03"          # MSH-9, as far as written
//! expect = "accepted"       # accepted | duplicate | refused | oversize | test
//! control_id = "VT-001"     # optional: MSH-10, or its beginning followed by *; without it, cases are taken in order of arrival
//! ack = "AA"                # optional: MSA-1, or "none"; without it, any that fits what is expected
//! stage = "live"            # optional: what the event must carry
//! ```

use std::path::Path;

use super::fault::FaultList;
use super::reader::{Section, choice, text};
use super::{Faults, base_fault, document, read_text};
use crate::limits::{CASES_BYTES_MAX, CASES_MAX, CONTROL_ID_BYTES_MAX};
use crate::record::Stage;
use crate::source::answer::AckCode;

/// What is expected of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Accepted,
    Duplicate,
    Refused,
    Oversize,
    /// Accepted, and its event marked as a test.
    Test,
}

impl Expect {
    const WORDS: [(&'static str, Self); 5] = [
        ("accepted", Self::Accepted),
        ("duplicate", Self::Duplicate),
        ("refused", Self::Refused),
        ("oversize", Self::Oversize),
        ("test", Self::Test),
    ];

    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(_, expect)| *expect == self).map_or("", |(word, _)| word)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub name: String,
    /// `DFT^P03`; empty for any.
    pub message_type: String,
    pub expect: Expect,
    pub control_id: Option<String>,
    pub ack: Option<AckCode>,
    pub stage: Option<Stage>,
}

/// Reads a script. Every fault is told with its line.
pub fn load(file: &Path) -> Result<Vec<Case>, Faults> {
    parse(file, &read_text(file, CASES_BYTES_MAX, "is larger than 256 KiB; that is no list of cases", "the script")?)
}

pub fn parse(file: &Path, text: &str) -> Result<Vec<Case>, Faults> {
    let document = document(file, text)?;
    let mut faults = FaultList::default();
    let mut root = Section::root(document.get_ref());
    let sections = root.sections(&mut faults, "case");
    root.finish(&mut faults);
    let count = sections.len();
    let cases: Vec<Case> = sections.into_iter().filter_map(|section| case(section, &mut faults)).collect();
    if !faults.is_empty() {
        return Err(faults.into_faults(file, text));
    }
    match count {
        0 => Err(base_fault(file, "lists no case; write [[case]] once for each message the vendor sends")),
        n if n > CASES_MAX => Err(base_fault(file, "lists more than 256 cases; split the test")),
        _ => Ok(cases),
    }
}

fn case(mut section: Section<'_, '_>, faults: &mut FaultList) -> Option<Case> {
    const ACKS: [(&str, AckCode); 7] = [
        ("AA", AckCode::Aa),
        ("AE", AckCode::Ae),
        ("AR", AckCode::Ar),
        ("CA", AckCode::Ca),
        ("CE", AckCode::Ce),
        ("CR", AckCode::Cr),
        ("none", AckCode::None),
    ];
    const STAGES: [(&str, Stage); 3] = [("test", Stage::Test), ("shadow", Stage::Shadow), ("live", Stage::Live)];
    let name = section.read(faults, "name", text);
    let message_type = section.read(faults, "type", text);
    let expect = section.read(faults, "expect", choice(&Expect::WORDS));
    let control_id = section.read(faults, "control_id", |value| {
        let id = text(value)?;
        if id.len() > CONTROL_ID_BYTES_MAX { Err("is longer than 199 bytes".to_owned()) } else { Ok(id) }
    });
    let ack = section.read(faults, "ack", choice(&ACKS));
    let stage = section.read(faults, "stage", choice(&STAGES));
    let place = section.place.clone();
    for (key, absent) in [("name", name.is_absent()), ("expect", expect.is_absent())] {
        if absent {
            faults.add(&place.missing(key), "is missing");
        }
    }
    section.finish(faults);
    Some(Case {
        name: name.given()?.value.clone(),
        message_type: message_type.given().map(|at| at.value.clone()).unwrap_or_default(),
        expect: expect.given()?.value,
        control_id: control_id.given().map(|at| at.value.clone()),
        ack: ack.given().map(|at| at.value),
        stage: stage.given().map(|at| at.value),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_read_and_every_fault_is_told_with_its_line() {
        let good = "[[case]]\nname = \"one\"\ntype = \"DFT^P03\"\nexpect = \"duplicate\"\ncontrol_id = \"V1\"\nack = \"AA\"\n\n\
                    [[case]]\nname = \"two\"\nexpect = \"test\"\n";
        let cases = parse("c.toml".as_ref(), good).unwrap();
        assert_eq!(cases.len(), 2);
        assert_eq!((cases[0].expect, cases[0].control_id.as_deref(), cases[0].ack), (Expect::Duplicate, Some("V1"), Some(AckCode::Aa)));
        assert_eq!((cases[1].message_type.as_str(), cases[1].expect.as_str()), ("", "test"));

        let bad = "[[case]]\nname = \"one\"\nexpct = \"test\"\n[[case]]\nexpect = \"lost\"\nname = 7\n";
        let told = parse("c.toml".as_ref(), bad).unwrap_err().to_string();
        for part in ["c.toml:3", "did you mean \"expect\"?", "expect: is missing", "c.toml:5", "must be \"accepted\"", "c.toml:6"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(parse("c.toml".as_ref(), "").unwrap_err().to_string().contains("lists no case"));
        assert!(parse("c.toml".as_ref(), "x = ").is_err());
    }
}
