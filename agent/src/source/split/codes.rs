//! Why a piece is no record, or a file not whole: the codes, and what each means to people.
//!
//! Codes are stable: they stand in quarantine, in reports to the hub and beside files in `failed/`.

/// Defines a code and its line in [`meaning`].
macro_rules! codes {
    ($($name:ident = $code:literal: $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $name: &str = $code;)*
        /// Every code there is.
        pub const ALL: &[&str] = &[$($code),*];
        /// What a code means, and what to do.
        pub fn meaning(code: &str) -> &'static str {
            match code {
                $($code => $meaning,)*
                _ => "unknown code",
            }
        }
    };
}

codes! {
    RECORD_OVER_LIMIT = "record_over_limit": "the record is larger than message_bytes_max; raise it, or have the source write smaller records";
    DISCARD_BUDGET_SPENT = "discard_budget_spent": "no end of a record was found for very long; this is probably not a file of this format";
    TEXT_UTF16 = "text_utf16": "the file is UTF-16; have the source write UTF-8 or a one-byte character set";
    XML = "xml": "the file is XML, which is not split; have the source write JSON, or take files as they are with `whole`";
    CSV_COLUMNS = "csv_columns": "the row has more or fewer columns than the header (without header: than the first row)";
    CSV_ENCODING = "csv_encoding": "the row is not valid in the feed's encoding; correct `encoding` or the source";
    CSV_QUOTE_UNCLOSED = "csv_quote_unclosed": "a quote opens in this line and the rows behind it do not fit; the source must double quotes inside fields";
    CSV_HEADER_OVER_LIMIT = "csv_header_over_limit": "the header row is too large to go with every record; is this a CSV file with this delimiter?";
    FIXED_SHORT = "fixed_short": "the record ends before the layout does; correct the layout, or allow trimmed ends";
    FIXED_LONG = "fixed_long": "the record goes on behind the layout; correct the layout";
    FIXED_ENCODING = "fixed_encoding": "the record is not valid in the feed's encoding; correct `encoding` or the source";
    FIXED_CUT = "fixed_cut": "the file ends inside a record; it was probably cut off";
    JSON_INVALID = "json_invalid": "not valid JSON";
    JSON_ENCODING = "json_encoding": "JSON must be UTF-8 and this is not";
    JSON_DEPTH = "json_depth": "the JSON value is nested deeper than anything sensible";
    JSON_EMPTY_ELEMENT = "json_empty_element": "a comma without a value beside it";
    JSON_CUT = "json_cut": "the file ends inside an array or object; it was probably cut off";
    JSON_TRAILING = "json_trailing": "something stands behind the end of the JSON value";
    JSON_NOT_ARRAY = "json_not_array": "the file is not a JSON array; for one value a line use ndjson, for a FHIR Bundle fhir_bundle";
    JSON_NOT_OBJECT = "json_not_object": "the file is not a JSON object; for an array use json_array, for one resource a line ndjson";
    NDJSON_CUT = "ndjson_cut": "the last line has no end and is no JSON; the file was probably cut off";
    BUNDLE_ENTRY = "bundle_entry": "`entry` of the Bundle is not an array";
    BUNDLE_TYPE = "bundle_type": "the object has no `resourceType` and is no FHIR resource";
    HL7_STRAY = "hl7_stray": "text outside of any message; a message must begin with MSH at the start of a line";
    HL7_NO_MESSAGE = "hl7_no_message": "no segment of HL7 was found; this is not an HL7 file";
    HL7_BATCH_COUNT = "hl7_batch_count": "BTS-1 says another number of messages than the batch holds";
    HL7_FILE_COUNT = "hl7_file_count": "FTS-1 says another number of batches than the file holds";
    HL7_COUNT_UNREADABLE = "hl7_count_unreadable": "BTS-1 or FTS-1 is not a number";
    HL7_BTS_MISSING = "hl7_bts_missing": "a batch (BHS) without its end (BTS); the file was probably cut off";
    HL7_FTS_MISSING = "hl7_fts_missing": "a file header (FHS) without its end (FTS); the file was probably cut off";
    X12_STRAY = "x12_stray": "text outside of any interchange";
    X12_STRAY_SEGMENT = "x12_stray_segment": "a segment that has no place where it stands in the envelope";
    X12_NO_INTERCHANGE = "x12_no_interchange": "no ISA was found; this is not an X12 file";
    X12_ISA = "x12_isa": "the ISA cannot be read";
    X12_ISA_UNPADDED = "x12_isa_unpadded": "the ISA is not padded to 106 bytes; its separators were found by counting";
    X12_IEA_MISSING = "x12_iea_missing": "an interchange without its end (IEA); the file was probably cut off";
    X12_IEA_COUNT = "x12_iea_count": "IEA01 says another number of groups than the interchange holds";
    X12_IEA_NUMBER = "x12_iea_number": "IEA02 is not the control number of the ISA";
    X12_ISA_REPEATED = "x12_isa_repeated": "two interchanges of the file have the same control number";
    X12_GE_MISSING = "x12_ge_missing": "a group without its end (GE)";
    X12_GE_COUNT = "x12_ge_count": "GE01 says another number of transaction sets than the group holds";
    X12_GE_NUMBER = "x12_ge_number": "GE02 is not the control number of the GS";
    X12_GS_REPEATED = "x12_gs_repeated": "two groups of the interchange have the same control number";
    X12_SE_MISSING = "x12_se_missing": "a transaction set without its end (SE)";
    X12_SE_COUNT = "x12_se_count": "SE01 says another number of segments than the transaction set holds";
    X12_SE_NUMBER = "x12_se_number": "SE02 is not the control number of the ST";
    X12_ST_REPEATED = "x12_st_repeated": "two transaction sets of the group have the same control number";
    X12_BINARY_LENGTH = "x12_binary_length": "the length of a binary segment (BIN, BDS) is no number or does not lead to its terminator";
}
