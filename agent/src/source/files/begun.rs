//! How a file was split when it was begun, as it is kept beside the list of files (I3).
//!
//! A place in a file is a number of pieces, and pieces are what the splitter makes of the bytes. Where `split` changes while a file is half stored,
//! the number would mean something else: rows would be lost or come twice. So a file is finished under the settings it was begun with, also by
//! another process after a crash: the list says how files are split that are begun now, and when that changes, how each was that is not finished.
//! A file of which nothing is stored yet is begun under the new settings. A file that stays behind in a directory the feed no longer watches
//! stays half stored; it is gone on with if the feed comes back to it.

use serde::{Deserialize, Serialize};

use crate::source::charset::Charset;
use crate::source::split::{CsvSettings, FixedField, FixedSettings, SplitSettings, X12Level};

/// As stored. Frozen: a change is a new variant, at the end.
#[derive(Serialize, Deserialize)]
enum Stored {
    Whole,
    Hl7Batch,
    Hl7Concat,
    Lines,
    Csv { delimiter: u8, quote: Option<u8>, encoding: String, header: bool },
    Fixed { fields: Vec<(u32, u32)>, record_len: Option<u32>, trimmed_ends: bool, encoding: String },
    X12Transaction,
    X12Group,
    X12Interchange,
    Ndjson,
    JsonArray,
    FhirBundle,
}

pub fn encode(split: &SplitSettings) -> Vec<u8> {
    let encoding = |charset: Charset| charset.name().to_owned();
    let stored = match split {
        SplitSettings::Whole => Stored::Whole,
        SplitSettings::Hl7Batch => Stored::Hl7Batch,
        SplitSettings::Hl7Concat => Stored::Hl7Concat,
        SplitSettings::Lines => Stored::Lines,
        SplitSettings::Csv(csv) => {
            Stored::Csv { delimiter: csv.delimiter, quote: csv.quote, encoding: encoding(csv.encoding), header: csv.header }
        }
        SplitSettings::Fixed(fixed) => Stored::Fixed {
            fields: fixed.fields.iter().map(|field| (field.start, field.len)).collect(),
            record_len: fixed.record_len,
            trimmed_ends: fixed.trimmed_ends,
            encoding: encoding(fixed.encoding),
        },
        SplitSettings::X12 { level: X12Level::Transaction } => Stored::X12Transaction,
        SplitSettings::X12 { level: X12Level::Group } => Stored::X12Group,
        SplitSettings::X12 { level: X12Level::Interchange } => Stored::X12Interchange,
        SplitSettings::Ndjson => Stored::Ndjson,
        SplitSettings::JsonArray => Stored::JsonArray,
        SplitSettings::FhirBundle => Stored::FhirBundle,
    };
    postcard::to_stdvec(&stored).expect("serialising to memory cannot fail")
}

/// `None`: written by a version that knows more ways to split.
pub fn decode(bytes: &[u8]) -> Option<SplitSettings> {
    let charset = |name: String| Charset::named(&name).ok();
    Some(match postcard::from_bytes(bytes).ok()? {
        Stored::Whole => SplitSettings::Whole,
        Stored::Hl7Batch => SplitSettings::Hl7Batch,
        Stored::Hl7Concat => SplitSettings::Hl7Concat,
        Stored::Lines => SplitSettings::Lines,
        Stored::Csv { delimiter, quote, encoding, header } => {
            SplitSettings::Csv(CsvSettings { delimiter, quote, encoding: charset(encoding)?, header })
        }
        Stored::Fixed { fields, record_len, trimmed_ends, encoding } => SplitSettings::Fixed(FixedSettings {
            fields: fields.into_iter().map(|(start, len)| FixedField { start, len }).collect(),
            record_len,
            trimmed_ends,
            encoding: charset(encoding)?,
        }),
        Stored::X12Transaction => SplitSettings::X12 { level: X12Level::Transaction },
        Stored::X12Group => SplitSettings::X12 { level: X12Level::Group },
        Stored::X12Interchange => SplitSettings::X12 { level: X12Level::Interchange },
        Stored::Ndjson => SplitSettings::Ndjson,
        Stored::JsonArray => SplitSettings::JsonArray,
        Stored::FhirBundle => SplitSettings::FhirBundle,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_split_is_read_back_as_it_was() {
        let names = ["whole", "hl7_batch", "hl7_concat", "lines", "csv", "fixed", "x12", "ndjson", "json_array", "fhir_bundle"];
        for split in names.map(|name| SplitSettings::named(name).unwrap()) {
            assert_eq!(decode(&encode(&split)), Some(split));
        }
        for set in ["us-ascii", "iso-8859-1", "iso-8859-9", "windows-1252", "utf-8", "shift_jis", "iso-8859-15", "windows-1250"] {
            let encoding = Charset::named(set).unwrap();
            let csv = SplitSettings::Csv(CsvSettings { encoding, quote: None, ..CsvSettings::default() });
            assert_eq!(decode(&encode(&csv)), Some(csv), "{set}");
        }
        for level in [X12Level::Group, X12Level::Interchange] {
            assert_eq!(decode(&encode(&SplitSettings::X12 { level })), Some(SplitSettings::X12 { level }));
        }
        assert_eq!(decode(&[200]), None);
    }
}
