//! CSV of any bytes, with and without header and quotes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siteward::source::split::{CsvSettings, SplitSettings};

#[path = "../split/check.rs"]
mod check;

fuzz_target!(|input: &[u8]| check::check(input, |choice| SplitSettings::Csv(CsvSettings {
    header: choice & 1 == 0,
    quote: (choice & 2 == 0).then_some(b'"'),
    delimiter: if choice & 4 == 0 { b',' } else { b';' },
    ..CsvSettings::default()
})));
