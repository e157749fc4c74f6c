//! Fixed width of any bytes, in lines and blocks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siteward::source::split::{FixedSettings, SplitSettings};

#[path = "../split/check.rs"]
mod check;

fuzz_target!(|input: &[u8]| check::check(input, |choice| SplitSettings::Fixed(FixedSettings {
    record_len: (choice & 1 == 0).then_some(u32::from(choice >> 2) + 7),
    trimmed_ends: choice & 2 == 0,
    ..FixedSettings::from_widths(&[4, 3])
})));
