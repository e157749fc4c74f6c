//! JSON of any bytes: lines, arrays, Bundles.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siteward::source::split::SplitSettings;

#[path = "../split/check.rs"]
mod check;

fuzz_target!(|input: &[u8]| check::check(input, |choice| match choice % 3 {
    0 => SplitSettings::Ndjson,
    1 => SplitSettings::JsonArray,
    _ => SplitSettings::FhirBundle,
}));
