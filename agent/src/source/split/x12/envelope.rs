//! What an interchange, group and transaction set claim of themselves, against what came.
//!
//! A difference inside a record spoils the record (it goes to the quarantine, its neighbours go on). A difference above the records is
//! told by the verdict: less than claimed, or no end, holds the file. All differences are findings.

use std::collections::HashSet;
use std::ops::Range;

use super::isa::Number;
use crate::limits::X12_NUMBERS_REMEMBERED;
use crate::source::split::codes;
use crate::source::split::settings::X12Level;
use crate::source::split::verdict::{Notes, State};

/// One open interchange, group or set.
#[derive(Debug)]
pub(super) struct Open {
    pub number: Number,
    /// Groups, sets or segments so far.
    pub found: u64,
}

/// Codes of one level.
struct Names {
    missing: &'static str,
    count: &'static str,
    number: &'static str,
    repeated: &'static str,
}

fn names(level: X12Level) -> Names {
    use codes::{
        X12_GE_COUNT, X12_GE_MISSING, X12_GE_NUMBER, X12_GS_REPEATED, X12_IEA_COUNT, X12_IEA_MISSING, X12_IEA_NUMBER, X12_ISA_REPEATED,
        X12_SE_COUNT, X12_SE_MISSING, X12_SE_NUMBER, X12_ST_REPEATED,
    };
    let [missing, count, number, repeated] = match level {
        X12Level::Interchange => [X12_IEA_MISSING, X12_IEA_COUNT, X12_IEA_NUMBER, X12_ISA_REPEATED],
        X12Level::Group => [X12_GE_MISSING, X12_GE_COUNT, X12_GE_NUMBER, X12_GS_REPEATED],
        X12Level::Transaction => [X12_SE_MISSING, X12_SE_COUNT, X12_SE_NUMBER, X12_ST_REPEATED],
    };
    Names { missing, count, number, repeated }
}

/// The open levels: `open[0]` is the set, `open[1]` the group, `open[2]` the interchange.
#[derive(Debug)]
pub(super) struct Envelope {
    record: X12Level,
    open: [Option<Open>; 3],
    numbers: [HashSet<Number>; 3],
    /// Why the record in progress is none.
    pub fault: Option<&'static str>,
    claimed: Option<u64>,
}

impl Envelope {
    pub(super) fn new(record: X12Level) -> Self {
        Self { record, open: [const { None }; 3], numbers: std::array::from_fn(|_| HashSet::new()), fault: None, claimed: Some(0) }
    }

    pub(super) fn is_open(&self, level: X12Level) -> bool {
        self.open[level as usize].is_some()
    }

    /// A record is in progress.
    pub(super) fn in_record(&self) -> bool {
        self.is_open(self.record)
    }

    pub(super) fn count_segment(&mut self) {
        if let Some(set) = &mut self.open[X12Level::Transaction as usize] {
            set.found += 1;
        }
    }

    pub(super) fn open(&mut self, level: X12Level, number: Number, range: Range<u64>, notes: &mut Notes) {
        let index = level as usize;
        for below in &mut self.numbers[..index] {
            below.clear();
        }
        if let Some(above) = self.open.get_mut(index + 1).and_then(Option::as_mut) {
            above.found += 1;
        }
        self.open[index] = Some(Open { number, found: u64::from(level == X12Level::Transaction) });
        if level == self.record {
            self.fault = None;
        }
        let known = &mut self.numbers[index];
        if known.contains(&number) {
            self.note(level, names(level).repeated, range, None, notes);
        } else if known.len() < X12_NUMBERS_REMEMBERED {
            known.insert(number);
        }
    }

    /// A trailer came.
    pub(super) fn close(&mut self, level: X12Level, count: &[u8], number: Number, range: Range<u64>, notes: &mut Notes) {
        let Some(open) = self.open[level as usize].take() else { return };
        let names = names(level);
        let count: Option<u64> = std::str::from_utf8(count.trim_ascii()).ok().and_then(|text| text.parse().ok());
        if open.number != number {
            self.note(level, names.number, range.clone(), None, notes);
        }
        if count != Some(open.found) {
            self.note(level, names.count, range, Some((count.unwrap_or(0), open.found)), notes);
        }
        if level as usize == self.record as usize + 1 {
            self.claimed = match (self.claimed, count) {
                (Some(sum), Some(count)) => sum.checked_add(count),
                _ => None,
            };
        }
    }

    /// Levels up to this one end without their trailers.
    pub(super) fn close_without(&mut self, up_to: X12Level, at: u64, end: bool, notes: &mut Notes) {
        for level in [X12Level::Transaction, X12Level::Group, X12Level::Interchange] {
            if level > up_to {
                break;
            }
            if self.open[level as usize].take().is_some() {
                let code = names(level).missing;
                self.note(level, code, at..at, None, notes);
                if end || level == X12Level::Interchange {
                    notes.worsen(State::Truncated { code: codes::X12_IEA_MISSING });
                }
            }
        }
    }

    /// The sum of what the trailers directly above the records claim.
    pub(super) fn claimed(&self) -> Option<u64> {
        if self.record == X12Level::Interchange { None } else { self.claimed }
    }

    fn note(&mut self, level: X12Level, code: &'static str, range: Range<u64>, counts: Option<(u64, u64)>, notes: &mut Notes) {
        notes.find(code, range, counts);
        let repeated = code == names(level).repeated;
        if level <= self.record && !repeated {
            self.fault.get_or_insert(code);
        }
        let missing = code == names(level).missing;
        let short = counts.is_some_and(|(claimed, found)| claimed > found);
        if level > self.record || (short && level > X12Level::Transaction) {
            notes.worsen(match counts {
                _ if missing || short => State::Truncated { code },
                Some((claimed, found)) => State::CountMismatch { code, claimed, found },
                None => State::Flagged { code },
            });
        }
    }
}
