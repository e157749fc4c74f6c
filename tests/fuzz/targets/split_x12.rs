//! X12 of any bytes, on each level.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siteward::source::split::{SplitSettings, X12Level};

#[path = "../split/check.rs"]
mod check;

fuzz_target!(|input: &[u8]| check::check(input, |choice| SplitSettings::X12 {
    level: [X12Level::Transaction, X12Level::Group, X12Level::Interchange][usize::from(choice % 3)],
}));
