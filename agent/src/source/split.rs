//! Splitting a file or a posted body into records: bytes in, pieces out; no I/O, no time.
//!
//! ```text
//!   feed(bytes) ──► Window ──► format (whole, lines, csv, fixed, hl7, x12, ndjson, json, bundle) ──► Piece, Piece, …
//!   end()                      what a line, row, set or element is                                   └► Verdict at the end
//! ```
//!
//! 1. Whoever reads the file feeds it in any portions (`SPLIT_FEED_BYTES` or less) and takes pieces from [`Splitter::next_piece`] until
//!    there is none, then feeds again. After the last byte [`Splitter::end`], the remaining pieces, and [`Splitter::verdict`]; or
//!    [`Splitter::finish`], which does the three and suits small inputs.
//! 2. A [`Piece`] is a record, or something that is none with a reason: it costs only itself, its neighbours go on. Pieces are numbered from 1
//!    in file order; their ranges are disjoint and grow. What lies between them is envelope: line ends, blank lines, byte order marks, a CSV
//!    header, batch headers, brackets and commas.
//! 3. The [`Verdict`] comes after the last byte, and only then is known whether the file was whole. Where a file must not be captured half
//!    (`Truncated`, `Unusable`), split it twice: first for the verdict, then for the pieces.
//! 4. The same bytes give the same pieces, however they were cut into portions. To go on after a crash, split again from the start and skip
//!    the pieces whose `range.end` is not above the durable progress.
//!
//! What a record's bytes are, for whoever reads them later:
//!
//! | format | bytes of a record | `range` |
//! |---|---|---|
//! | whole | the file | the file |
//! | lines, ndjson, fixed | the line without its end (ndjson: without blanks around; a byte order mark at the front is left out) | same |
//! | csv | header row, its line end as in the file (LF, CRLF or CR), the row without its end; without header the row only | the row |
//! | hl7 | from MSH to the end of its last segment with its line end; framing bytes and blank lines behind it are left out | same |
//! | x12 interchange | ISA to IEA, both with their terminators | same |
//! | x12 group | ISA, then GS to GE; a TA1 outside of groups likewise: ISA, TA1 | GS to GE |
//! | x12 transaction | ISA, GS, then ST to SE; a TA1 as above | ST to SE |
//! | json array | the element without blanks around | same |
//! | fhir bundle | the entry (`fullUrl`, `resource`, `request` …) as it stands; a resource that is no Bundle: the file | same |
//!
//! Memory (I4): the buffer holds at most `record_bytes`, `slack_bytes`, one feed and, of X12, one segment (`X12_SEGMENT_BYTES_MAX`); beside
//! it a CSV or X12 header and a few small numbers.
//! A record over the limit becomes a bad piece with its first `bad_bytes`. `Debug` shows lengths only (I7).

mod bundle;
pub mod codes;
mod csv;
mod fixed;
mod hl7;
mod json;
mod lines;
mod settings;
#[cfg(test)]
mod tests;
mod verdict;
mod whole;
mod window;
mod x12;

use bytes::Bytes;
use std::fmt;
use std::ops::Range;

use self::bundle::FhirBundle;
use self::csv::Csv;
use self::fixed::Fixed;
use self::hl7::Hl7;
use self::json::JsonArray;
use self::lines::Lines;
pub use self::settings::{CsvSettings, FixedField, FixedSettings, SplitError, SplitLimits, SplitSettings, X12Level};
use self::verdict::Notes;
pub use self::verdict::{Finding, State, Verdict};
use self::whole::Whole;
use self::window::{Cut, Window};
use self::x12::X12;

/// One part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// From 1, in file order; records and bad pieces alike.
    pub index: u64,
    /// Where it stands in the file.
    pub range: Range<u64>,
    /// Line number, from 1, where lines mean something.
    pub row: Option<u64>,
    pub kind: PieceKind,
}

#[derive(Clone, PartialEq, Eq)]
pub enum PieceKind {
    Record(Bytes),
    /// No record, and why; `bytes` are its first `bad_bytes`.
    Bad {
        code: &'static str,
        bytes: Bytes,
    },
}

impl fmt::Debug for PieceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(bytes) => write!(f, "Record[{} bytes]", bytes.len()),
            Self::Bad { code, bytes } => write!(f, "Bad({code})[{} bytes]", bytes.len()),
        }
    }
}

enum Format {
    Whole,
    Lines(Lines),
    Csv(Box<Csv>),
    Fixed(Fixed),
    Hl7(Hl7),
    X12(Box<X12>),
    Array(JsonArray),
    Bundle(FhirBundle),
}

/// Splits one file.
pub struct Splitter {
    window: Window,
    format: Format,
    notes: Notes,
    made: u64,
    bad: u64,
    /// Bytes in pieces.
    covered: u64,
    closed: Option<&'static str>,
}

impl fmt::Debug for Splitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Splitter").field("pieces", &self.made).field("held", &self.window.held()).finish_non_exhaustive()
    }
}

impl Splitter {
    /// Fails where the settings cannot be: then it says what to change.
    pub fn new(settings: &SplitSettings, limits: SplitLimits) -> Result<Self, SplitError> {
        settings.check()?;
        let format = match settings {
            SplitSettings::Whole => Format::Whole,
            SplitSettings::Lines => Format::Lines(Lines::default()),
            SplitSettings::Csv(csv) => Format::Csv(Box::new(Csv::new(csv.clone(), &limits))),
            SplitSettings::Fixed(fixed) => Format::Fixed(Fixed::new(fixed.clone())),
            SplitSettings::Hl7Batch => Format::Hl7(Hl7::new(true)),
            SplitSettings::Hl7Concat => Format::Hl7(Hl7::new(false)),
            SplitSettings::X12 { level } => Format::X12(Box::new(X12::new(*level))),
            SplitSettings::Ndjson => Format::Lines(Lines::ndjson()),
            SplitSettings::JsonArray => Format::Array(JsonArray::default()),
            SplitSettings::FhirBundle => Format::Bundle(FhirBundle::default()),
        };
        Ok(Self { window: Window::new(limits), format, notes: Notes::default(), made: 0, bad: 0, covered: 0, closed: None })
    }

    /// The same for whoever wants to know what there is, and no bytes: records may come empty, which is faster. Everything else is as it would be.
    pub fn survey(settings: &SplitSettings, limits: SplitLimits) -> Result<Self, SplitError> {
        let mut splitter = Self::new(settings, limits)?;
        if let Format::Csv(csv) = &mut splitter.format {
            csv.survey();
        }
        Ok(splitter)
    }

    /// The next bytes of the file. Take all pieces before feeding again.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.window.feed(bytes);
    }

    /// The file ends here.
    pub fn end(&mut self) {
        self.window.end();
    }

    /// The next piece that is complete; `None`: feed more, or after `end`: there is no more.
    pub fn next_piece(&mut self) -> Option<Piece> {
        if self.closed.is_none() {
            let cut = match &mut self.format {
                Format::Whole => Whole::next(&mut self.window),
                Format::Lines(format) => format.next(&mut self.window, &mut self.notes),
                Format::Csv(format) => format.next(&mut self.window, &mut self.notes),
                Format::Fixed(format) => format.next(&mut self.window, &mut self.notes),
                Format::Hl7(format) => format.next(&mut self.window, &mut self.notes),
                Format::X12(format) => format.next(&mut self.window, &mut self.notes),
                Format::Array(format) => format.next(&mut self.window, &mut self.notes),
                Format::Bundle(format) => format.next(&mut self.window, &mut self.notes),
            };
            self.closed = if self.window.is_spent() { Some(codes::DISCARD_BUDGET_SPENT) } else { self.notes.unusable() };
            match self.closed {
                None => return cut.map(|cut| self.number(cut)),
                Some(code) => {
                    self.notes.close(code);
                    self.window.close();
                }
            }
        }
        let code = self.closed.filter(|_| self.window.is_end())?;
        let (range, bytes) = self.window.take_closed()?;
        Some(self.number(Cut { range, row: None, kind: PieceKind::Bad { code, bytes } }))
    }

    /// Ends the input; what is left, and the verdict. What is left may be as large as the buffer: with large files call `end` and
    /// `next_piece` instead.
    pub fn finish(mut self) -> (Vec<Piece>, Verdict) {
        self.end();
        let pieces: Vec<Piece> = std::iter::from_fn(|| self.next_piece()).collect();
        (pieces, self.verdict())
    }

    /// What is known of the file as a whole; of use after `end` and the last piece.
    pub fn verdict(&self) -> Verdict {
        let bytes = self.window.fed();
        self.notes.verdict(self.made - self.bad, self.bad, bytes, bytes - self.covered)
    }

    /// Bytes in the buffer.
    pub fn held(&self) -> usize {
        self.window.held()
    }

    fn number(&mut self, cut: Cut) -> Piece {
        self.made += 1;
        self.covered += cut.range.end - cut.range.start;
        self.bad += u64::from(matches!(cut.kind, PieceKind::Bad { .. }));
        Piece { index: self.made, range: cut.range, row: cut.row, kind: cut.kind }
    }
}
