//! How a feed's files are split: plain data, checked once.
//!
//! `SplitSettings::named` gives the defaults of a name as written in a configuration; `check` refuses what cannot be split. Nothing is
//! guessed from the content: a wrong delimiter guessed on a quiet day would cost a night's rows.

use crate::limits::{FIXED_FIELDS_MAX, FIXED_RECORD_BYTES_MAX, SPLIT_BAD_BYTES_MAX, SPLIT_DISCARD_BYTES, SPLIT_SLACK_BYTES};
use crate::source::charset::Charset;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SplitSettings {
    /// The file is one record.
    Whole,
    /// HL7 v2 messages in FHS, BHS, BTS, FTS; counts are compared.
    Hl7Batch,
    /// HL7 v2 messages one after the other; headers and trailers, where there are any, are passed over without looking at their counts.
    Hl7Concat,
    Lines,
    Csv(CsvSettings),
    Fixed(FixedSettings),
    X12 {
        level: X12Level,
    },
    /// One JSON value a line.
    Ndjson,
    JsonArray,
    FhirBundle,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvSettings {
    pub delimiter: u8,
    /// `None`: quotes mean nothing.
    pub quote: Option<u8>,
    /// Rows that are not valid in it are bad; bytes are kept as they are.
    pub encoding: Charset,
    /// The first row names the columns.
    pub header: bool,
}

impl Default for CsvSettings {
    fn default() -> Self {
        Self { delimiter: b',', quote: Some(b'"'), encoding: Charset::UTF_8, header: true }
    }
}

/// Lengths count bytes where `record_len` is set or the encoding has one byte a character, else characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedSettings {
    /// May overlap or leave gaps; the record reaches to the end of the last one.
    pub fields: Vec<FixedField>,
    /// Records follow each other at this distance; line ends between them are passed over. Without it a record is a line.
    pub record_len: Option<u32>,
    /// A line may lack blanks at its end.
    pub trimmed_ends: bool,
    pub encoding: Charset,
}

/// Counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedField {
    pub start: u32,
    pub len: u32,
}

impl FixedSettings {
    /// Fields side by side.
    pub fn from_widths(widths: &[u32]) -> Self {
        let mut start = 0u32;
        let mut field = |len: &u32| {
            let field = FixedField { start, len: *len };
            start = start.saturating_add(*len);
            field
        };
        Self { fields: widths.iter().map(&mut field).collect(), record_len: None, trimmed_ends: false, encoding: Charset::WINDOWS_1252 }
    }

    /// Where the last field ends.
    pub fn width(&self) -> u32 {
        self.fields.iter().map(|field| field.start.saturating_add(field.len)).max().unwrap_or(0)
    }
}

/// What one record of an X12 file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum X12Level {
    Transaction,
    Group,
    Interchange,
}

/// Settings that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    #[error(
        "files in XML are not split: nothing here reads XML. Let the source write JSON, NDJSON or CSV, or take files as they are with `whole`"
    )]
    Xml,
    #[error("`{0}` is no way to split files; use whole, hl7_batch, hl7_concat, lines, csv, fixed, x12, ndjson, json_array or fhir_bundle")]
    Unknown(String),
    #[error("the CSV {0} must be a single character of ASCII that is no letter, digit or line end")]
    CsvCharacter(&'static str),
    #[error("CSV delimiter and quote must differ")]
    CsvSame,
    #[error("a fixed-width layout needs 1 to {FIXED_FIELDS_MAX} fields, each at least 1 wide")]
    FixedFields,
    #[error("the fixed-width layout ends at {width}; at most {FIXED_RECORD_BYTES_MAX} is possible")]
    FixedWidth { width: u32 },
    #[error("the fixed-width layout ends at {width}, behind the record length {record_len}; correct the fields or the length")]
    FixedLength { width: u32, record_len: u32 },
}

impl SplitSettings {
    /// The defaults of a name as written in a configuration. `fixed` comes without fields, which must follow.
    pub fn named(name: &str) -> Result<Self, SplitError> {
        Ok(match name {
            "whole" => Self::Whole,
            "hl7_batch" => Self::Hl7Batch,
            "hl7_concat" => Self::Hl7Concat,
            "lines" => Self::Lines,
            "csv" => Self::Csv(CsvSettings::default()),
            "fixed" => Self::Fixed(FixedSettings::from_widths(&[])),
            "x12" => Self::X12 { level: X12Level::Transaction },
            "ndjson" => Self::Ndjson,
            "json_array" => Self::JsonArray,
            "fhir_bundle" => Self::FhirBundle,
            "xml" => return Err(SplitError::Xml),
            other => return Err(SplitError::Unknown(other.chars().take(40).collect())),
        })
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Hl7Batch => "hl7_batch",
            Self::Hl7Concat => "hl7_concat",
            Self::Lines => "lines",
            Self::Csv(_) => "csv",
            Self::Fixed(_) => "fixed",
            Self::X12 { .. } => "x12",
            Self::Ndjson => "ndjson",
            Self::JsonArray => "json_array",
            Self::FhirBundle => "fhir_bundle",
        }
    }

    /// Whether a splitter can be made of them.
    pub fn check(&self) -> Result<(), SplitError> {
        match self {
            Self::Csv(csv) => csv.check(),
            Self::Fixed(fixed) => fixed.check(),
            _ => Ok(()),
        }
    }
}

impl CsvSettings {
    fn check(&self) -> Result<(), SplitError> {
        let usable = |b: u8| b.is_ascii() && !b.is_ascii_alphanumeric() && !matches!(b, b'\r' | b'\n' | 0);
        if !usable(self.delimiter) {
            return Err(SplitError::CsvCharacter("delimiter"));
        }
        if self.quote.is_some_and(|quote| !usable(quote)) {
            return Err(SplitError::CsvCharacter("quote"));
        }
        if self.quote == Some(self.delimiter) { Err(SplitError::CsvSame) } else { Ok(()) }
    }
}

impl FixedSettings {
    fn check(&self) -> Result<(), SplitError> {
        if self.fields.is_empty() || self.fields.len() > FIXED_FIELDS_MAX || self.fields.iter().any(|field| field.len == 0) {
            return Err(SplitError::FixedFields);
        }
        let width = self.width().max(self.record_len.unwrap_or(0));
        if width > FIXED_RECORD_BYTES_MAX {
            return Err(SplitError::FixedWidth { width });
        }
        match self.record_len {
            Some(record_len) if record_len < self.width() => Err(SplitError::FixedLength { width: self.width(), record_len }),
            _ => Ok(()),
        }
    }
}

/// The bounds of one splitter.
#[derive(Clone, Copy, Debug)]
pub struct SplitLimits {
    /// Largest record, in bytes.
    pub record_bytes: usize,
    /// Kept of a bad piece.
    pub bad_bytes: usize,
    /// What may stand around a record on top of it.
    pub slack_bytes: usize,
    /// Most bytes of one record read while looking for its end.
    pub discard_bytes: u64,
}

impl SplitLimits {
    pub fn new(message_bytes_max: u64) -> Self {
        let record_bytes = usize::try_from(message_bytes_max).unwrap_or(usize::MAX / 2);
        Self {
            record_bytes,
            bad_bytes: SPLIT_BAD_BYTES_MAX.min(record_bytes),
            slack_bytes: SPLIT_SLACK_BYTES,
            discard_bytes: SPLIT_DISCARD_BYTES.max(message_bytes_max.saturating_mul(2)),
        }
    }
}
