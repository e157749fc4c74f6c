//! HL7 of any bytes: batches, concatenated messages, lines, whole files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siteward::source::split::SplitSettings;

#[path = "../split/check.rs"]
mod check;

fuzz_target!(|input: &[u8]| check::check(input, |choice| match choice % 4 {
    0 => SplitSettings::Hl7Batch,
    1 => SplitSettings::Hl7Concat,
    2 => SplitSettings::Lines,
    _ => SplitSettings::Whole,
}));
